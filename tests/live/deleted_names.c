// SPDX-License-Identifier: Apache-2.0
// Files whose name is gone: with another name, in another directory, in a directory that is gone too, never named
// (O_TMPFILE, linked afterwards); directories, open and as the current one; device nodes; renamed files and directories.
#include <sys/sysmacros.h>

#include "live.h"

static int make(const char *name) {
  int fd = open(live_path(name), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  CHECK(fd >= 0 && write(fd, name, strlen(name)) == (ssize_t)strlen(name), "%s", name);
  return fd;
}
static void is(int fd, const char *name, nlink_t links) {
  char text[100] = "";
  struct stat st;
  CHECK(pread(fd, text, sizeof text - 1, 0) == (ssize_t)strlen(name) && strcmp(text, name) == 0, "%s: %s", name, text);
  CHECK(fstat(fd, &st) == 0 && st.st_nlink == links, "%s has %lu links", name, (unsigned long)st.st_nlink);
}
static void make_directory(const char *name) { CHECK(mkdir(live_path(name), 0750) == 0, "%s", name); }

int main(int argc, char **argv) {
  live_init(argc, argv);
  make_directory("d"), make_directory("e"), make_directory("e/f"), make_directory("gone"), make_directory("deep"), make_directory("deep/er"), make_directory("moved");
  int linked = make("linked"), far = make("d/far"), buried = make("deep/er/buried"), renamed = make("renamed"), inside = make("moved/inside");
  CHECK(link(live_path("linked"), live_path("sibling")) == 0 && unlink(live_path("linked")) == 0);
  CHECK(link(live_path("d/far"), live_path("e/f/far")) == 0 && unlink(live_path("d/far")) == 0);
  CHECK(unlink(live_path("deep/er/buried")) == 0 && rename(live_path("renamed"), live_path("new")) == 0);
  int nameless = open(live_path("d"), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  CHECK(nameless >= 0 && write(nameless, "nameless", 8) == 8);
  int directory = open(live_path("gone"), O_RDONLY | O_DIRECTORY | O_CLOEXEC), deep = open(live_path("deep/er"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int path = open(live_path("gone"), O_PATH | O_CLOEXEC), parent = open(live_path("moved"), O_RDONLY | O_CLOEXEC);
  CHECK(directory >= 0 && deep >= 0 && path >= 0 && parent >= 0 && rename(live_path("moved"), live_path("there")) == 0);
  int whole = mknod(live_path("null"), S_IFCHR | 0600, makedev(1, 3)) == 0;  // not in a user namespace
  int null = whole ? open(live_path("null"), O_RDWR | O_CLOEXEC) : -1;
  CHECK(!whole || (null >= 0 && unlink(live_path("null")) == 0));
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(chdir(live_path("deep/er")) == 0);
    live_gate_pass(gate);
    live_wait();
    char where[PATH_MAX];
    CHECK(getcwd(where, sizeof where) == NULL && errno == ENOENT, "the current directory has a name");
    CHECK(open("x", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT);
    _exit(0);
  }
  live_gate_await(gate, 1);
  CHECK(rmdir(live_path("gone")) == 0 && rmdir(live_path("deep/er")) == 0 && rmdir(live_path("deep")) == 0);
  live_ready();
  live_wait();

  is(linked, "linked", 1), is(far, "d/far", 1), is(buried, "deep/er/buried", 0), is(renamed, "renamed", 1), is(inside, "moved/inside", 1);
  is(nameless, "nameless", 0);
  struct stat st, named;
  CHECK(fstat(linked, &st) == 0 && stat(live_path("sibling"), &named) == 0 && st.st_ino == named.st_ino, "not the same file");
  CHECK(write(far, "!", 1) == 1 && stat(live_path("e/f/far"), &named) == 0 && named.st_size == 6, "%ld", (long)named.st_size);
  CHECK(fstat(inside, &st) == 0 && stat(live_path("there/inside"), &named) == 0 && st.st_ino == named.st_ino);
  char self[64];
  snprintf(self, sizeof self, "/proc/self/fd/%d", nameless);
  CHECK(linkat(AT_FDCWD, self, AT_FDCWD, live_path("named"), AT_SYMLINK_FOLLOW) == 0, "it can get no name any more");
  is(nameless, "nameless", 1);
  int dirs[] = {directory, deep, path};
  for (int i = 0; i < 3; i++)
    CHECK(fstat(dirs[i], &st) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & 0777) == 0750, "%d: mode %o", i, st.st_mode);
  CHECK(fcntl(directory, F_GETFL) & O_DIRECTORY);
  CHECK(openat(directory, "x", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT);
  CHECK(faccessat(parent, "inside", F_OK, 0) == 0);
  CHECK(!whole || (fstat(null, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3) && write(null, "x", 1) == 1));
  const char *none[] = {"linked", "d/far", "deep", "renamed", "gone", "moved", "null"};
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) CHECK(access(live_path(none[i]), F_OK) < 0, "%s is there", none[i]);
  live_reap_ok(child);
  live_ok();
}
