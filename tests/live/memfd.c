// SPDX-License-Identifier: Apache-2.0
// Memory files: contents with holes, odd sizes, positions, owner and mode, descriptions that share the inode and such
// that are dup'ed, seals, private and shared mappings with and without descriptor; memfd_create(2), fcntl(2).
#include "live.h"

enum { kPage = 4096 };
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

static int make(const char *name, unsigned flags, off_t size) {
  int fd = memfd_create(name, MFD_CLOEXEC | flags);
  CHECK(fd >= 0, "%s", name);
  CHECK(ftruncate(fd, size) == 0);
  return fd;
}
static int reopen(int fd, int flags) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return open(path, flags | O_CLOEXEC);
}
static char *map(int fd, size_t size, int protection, int flags, off_t offset) {
  void *at = mmap(NULL, size, protection, flags, fd, offset);
  CHECK(at != MAP_FAILED);
  return at;
}
static void is_at(int fd, off_t want) { CHECK(lseek(fd, 0, SEEK_CUR) == want, "fd %d is at %ld", fd, (long)lseek(fd, 0, SEEK_CUR)); }

int main(int argc, char **argv) {
  live_init(argc, argv);
  // Plain: 1 MiB and a bit, written at both ends only.
  int plain = make("plain file: \"odd\" name", 0, (1 << 20) + 77);
  CHECK(pwrite(plain, "begin", 5, 0) == 5 && pwrite(plain, "end", 3, (1 << 20) + 70) == 3);
  CHECK(lseek(plain, 123, SEEK_SET) == 123 && fcntl(plain, F_SETFL, O_APPEND) == 0);
  CHECK(fchown(plain, 1234, 4321) == 0 && fchmod(plain, 0640) == 0);
  int twin = dup(plain);  // same description
  int reader = reopen(plain, O_RDONLY);  // not in a root without /proc
  if (reader >= 0) CHECK(lseek(reader, 2, SEEK_SET) == 2);
  // Seals of every kind.
  int fixed = make("fixed", MFD_ALLOW_SEALING, 3 * kPage);
  CHECK(pwrite(fixed, "sealed", 6, kPage) == 6);
  const int kFixed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
  CHECK(fcntl(fixed, F_ADD_SEALS, kFixed) == 0);
  char *fixed_private = map(fixed, 3 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
  memcpy(fixed_private + 2 * kPage, "mine", 4);
  int open_end = make("future", MFD_ALLOW_SEALING, 2 * kPage);
  char *writable = map(open_end, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
  strcpy(writable, "before");
  CHECK(fcntl(open_end, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0);
  char *late = map(open_end, kPage, PROT_READ, MAP_SHARED, kPage);
  int sealable = make("sealable", MFD_ALLOW_SEALING, 10);
  int no_exec = memfd_create("noexec", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
  // Mapped, and no descriptor any more.
  int closed = make("only mapped", 0, 4 * kPage);
  char *shared = map(closed, 3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, kPage);
  char *other = map(closed, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
  strcpy(shared, "shared"), strcpy(other, "private");
  close(closed);
  int empty = make("", 0, 0);
  int tag = fcntl(twin, F_GETFL);

  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    live_gate_pass(gate);
    live_wait();
    for (int i = 0; i < 3000 && strcmp(shared + 100, "ping"); i++) live_pause();
    CHECK(!strcmp(shared + 100, "ping"), "the mapping is not shared any more");
    CHECK(!strcmp(other, "private"));
    strcpy(shared + 200, "pong");
    CHECK(lseek(plain, 0, SEEK_CUR) == 128, "the position is not shared any more");
    _exit(0);
  }
  live_gate_await(gate, 1);
  live_ready();
  live_wait();

  char text[64] = "";
  struct stat st;
  CHECK(fstat(plain, &st) == 0 && st.st_size == (1 << 20) + 77 && st.st_uid == 1234 && st.st_gid == 4321);
  CHECK((st.st_mode & 07777) == 0640, "mode %o", st.st_mode);
  CHECK(st.st_blocks <= 64, "%ld blocks: the hole is filled", (long)st.st_blocks);
  is_at(plain, 123), is_at(twin, 123);
  if (reader >= 0) {
    struct stat st2;
    is_at(reader, 2);
    CHECK(fstat(reader, &st2) == 0 && st2.st_ino == st.st_ino, "two inodes");
    CHECK((fcntl(reader, F_GETFL) & O_ACCMODE) == O_RDONLY);
  }
  CHECK(fcntl(plain, F_GETFL) == tag, "flags %o, were %o", fcntl(plain, F_GETFL), tag);
  CHECK(pread(plain, text, 5, 0) == 5 && !memcmp(text, "begin", 5));
  CHECK(pread(plain, text, 9, (1 << 20) + 70) == 7 && !memcmp(text, "end\0\0\0\0", 7));
  CHECK(fcntl(plain, F_GET_SEALS) == F_SEAL_SEAL, "seals %x", fcntl(plain, F_GET_SEALS));
  CHECK(lseek(twin, 5, SEEK_CUR) == 128);

  CHECK(fcntl(fixed, F_GET_SEALS) == kFixed, "seals %x", fcntl(fixed, F_GET_SEALS));
  CHECK(pwrite(fixed, "x", 1, 0) < 0 && errno == EPERM && ftruncate(fixed, 0) < 0 && errno == EPERM);
  CHECK(pread(fixed, text, 6, kPage) == 6 && !memcmp(text, "sealed", 6));
  CHECK(!memcmp(fixed_private + kPage, "sealed", 6) && !memcmp(fixed_private + 2 * kPage, "mine", 4));
  CHECK(fcntl(open_end, F_GET_SEALS) == (F_SEAL_FUTURE_WRITE | F_SEAL_SEAL));
  CHECK(!strcmp(writable, "before"));
  strcpy(writable + kPage, "after");
  CHECK(!strcmp(late, "after"));
  CHECK(mprotect(late, kPage, PROT_READ | PROT_WRITE) < 0 && errno == EACCES, "a read-only mapping can be made writable");
  CHECK(mmap(NULL, kPage, PROT_WRITE, MAP_SHARED, open_end, 0) == MAP_FAILED && errno == EPERM);
  CHECK(fcntl(sealable, F_GET_SEALS) == 0 && fcntl(sealable, F_ADD_SEALS, F_SEAL_GROW) == 0);
  if (no_exec >= 0) {
    CHECK(fstat(no_exec, &st) == 0 && (st.st_mode & 0111) == 0 && (fcntl(no_exec, F_GET_SEALS) & F_SEAL_EXEC));
    CHECK(fchmod(no_exec, 0777) < 0 && errno == EPERM);
  }
  CHECK(!strcmp(shared, "shared") && !strcmp(other, "private") && shared[2 * kPage] == 0);
  strcpy(shared + 100, "ping");
  for (int i = 0; i < 3000 && strcmp(shared + 200, "pong"); i++) live_pause();
  CHECK(!strcmp(shared + 200, "pong"), "the child writes to another mapping");
  CHECK(fstat(empty, &st) == 0 && st.st_size == 0);
  live_reap_ok(child);
  live_ok();
}
