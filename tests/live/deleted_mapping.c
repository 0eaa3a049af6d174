// SPDX-License-Identifier: Apache-2.0
// Files without a name: mapped private and shared, open with several descriptions, sparse, one whose name is another
// file's now, one that never had a name (O_TMPFILE); and mappings of files that were truncated or extended later, whose
// pages behind the end give SIGBUS; unlink(2), mmap(2), sigbus in signal(7).
#include "live.h"
#include <setjmp.h>

enum { kPage = 4096 };
static sigjmp_buf back;
static void on_bus(int signal) { (void)signal, siglongjmp(back, 1); }
static int gives_bus(volatile char *at) {
  if (sigsetjmp(back, 1)) return 1;
  (void)*at;
  return 0;
}

static int make(const char *path, const char *text, off_t size, mode_t mode) {
  int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  CHECK(fd >= 0, "%s", path);
  CHECK(fchmod(fd, mode) == 0 && ftruncate(fd, size) == 0 && pwrite(fd, text, strlen(text), 0) == (ssize_t)strlen(text));
  return fd;
}
static char *map(int fd, size_t size, int protection, int flags, off_t offset) {
  void *at = mmap(NULL, size, protection, flags, fd, offset);
  CHECK(at != MAP_FAILED);
  return at;
}
static void holds(int fd, const char *text, off_t at) {
  char got[64] = "";
  CHECK(pread(fd, got, strlen(text), at) == (ssize_t)strlen(text) && !strcmp(got, text), "%s instead of %s", got, text);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  struct sigaction action = {.sa_handler = on_bus};
  CHECK(sigaction(SIGBUS, &action, NULL) == 0);
  // Mapped only; the descriptor is closed, the name is gone.
  const char *path = live_path("mapped");
  int fd = make(path, "contents", 5 * kPage, 0640);
  char *shared = map(fd, 3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
  char *private = map(fd, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, kPage);
  strcpy(shared + 2 * kPage, "third page"), strcpy(private + 2 * kPage, "mine alone");
  close(fd);
  CHECK(unlink(path) == 0);
  // Open twice, sparse, with positions; somebody else has the name.
  const char *taken = live_path("taken");
  int writer = make(taken, "old", 1l << 30, 0600), reader = open(taken, O_RDONLY | O_CLOEXEC);
  CHECK(pwrite(writer, "far", 3, 1 << 29) == 3 && lseek(reader, 2, SEEK_SET) == 2 && lseek(writer, 77, SEEK_SET) == 77);
  CHECK(fchown(writer, 12, 34) == 0 && fcntl(writer, F_SETFL, O_APPEND) == 0);
  struct timespec times[2] = {{1000000001, 5000}, {1000000002, 6000}};
  CHECK(futimens(writer, times) == 0 && unlink(taken) == 0);
  close(make(taken, "new", 3, 0600));
  // Never had a name, and may still get one.
  char *directory = live_path(""), *later = live_path("later");
  directory[strlen(directory) - 1] = 0;
  int nameless = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  unlink(later);
  if (nameless >= 0) CHECK(pwrite(nameless, "tmp", 3, 0) == 3);
  // Changed in size after they were mapped.
  int shrunk = make(live_path("shrunk"), "head", 4 * kPage, 0600), grown = make(live_path("grown"), "head", kPage, 0600);
  char *behind = map(shrunk, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
  char *cut = map(shrunk, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
  char *ahead = map(grown, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
  cut[3 * kPage] = 1, cut[5] = 5;
  CHECK(ftruncate(shrunk, kPage + 10) == 0 && ftruncate(grown, 3 * kPage) == 0);
  CHECK(gives_bus(behind + 2 * kPage) && gives_bus(cut + 3 * kPage) && gives_bus(ahead + 3 * kPage));
  strcpy(ahead + 2 * kPage, "grown");
  int same = fcntl(writer, F_GETFL);

  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    live_gate_pass(gate);
    live_wait();
    for (int i = 0; i < 3000 && strcmp(shared, "from the parent"); i++) live_pause();
    CHECK(!strcmp(shared, "from the parent"), "the deleted file is not shared any more");
    _exit(0);
  }
  live_gate_await(gate, 1);
  live_ready();
  live_wait();

  struct stat st, st2;
  CHECK(!strcmp(shared, "contents") && !strcmp(shared + 2 * kPage, "third page") && !strcmp(private + kPage, "third page"));
  CHECK(!strcmp(private + 2 * kPage, "mine alone") && !gives_bus(private + 3 * kPage));
  strcpy(shared, "from the parent");
  strcpy(shared + kPage, "seen by both");
  CHECK(!strcmp(private, "seen by both"), "the private mapping is of another file");
  CHECK(access(path, F_OK) < 0, "the deleted file has a name again");
  holds(writer, "old", 0), holds(reader, "far", 1 << 29);
  CHECK(fstat(writer, &st) == 0 && fstat(reader, &st2) == 0 && st.st_ino == st2.st_ino && st.st_nlink == 0);
  CHECK(st.st_size == 1l << 30 && st.st_blocks < 1000 && st.st_uid == 12 && st.st_gid == 34, "%ld blocks", (long)st.st_blocks);
  CHECK(st.st_mtim.tv_sec == 1000000002 && st.st_mtim.tv_nsec == 6000);
  CHECK(lseek(reader, 0, SEEK_CUR) == 2 && lseek(writer, 0, SEEK_CUR) == 77 && fcntl(writer, F_GETFL) == same);
  int other = open(taken, O_RDONLY | O_CLOEXEC);
  holds(other, "new", 0);
  if (nameless >= 0) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", nameless);
    holds(nameless, "tmp", 0);
    CHECK(access("/proc/self/fd", F_OK) || linkat(AT_FDCWD, link, AT_FDCWD, later, AT_SYMLINK_FOLLOW) == 0);
  }
  CHECK(!strcmp(behind, "head") && !gives_bus(behind + kPage) && gives_bus(behind + 2 * kPage), "the end has moved");
  CHECK(cut[5] == 5 && gives_bus(cut + 3 * kPage), "a page behind the end is there");
  CHECK(!strcmp(ahead + 2 * kPage, "grown") && gives_bus(ahead + 3 * kPage));
  CHECK(ftruncate(grown, 4 * kPage) == 0 && !gives_bus(ahead + 3 * kPage));
  CHECK(fstat(shrunk, &st) == 0 && st.st_size == kPage + 10);
  live_reap_ok(child);
  live_ok();
}
