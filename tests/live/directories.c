// SPDX-License-Identifier: Apache-2.0
// Open directories with their read position, and the current directory of each task; getdents64(2), chdir(2).
#include "live.h"
#include <dirent.h>

int main(int argc, char **argv) {
  live_init(argc, argv);
  char before[PATH_MAX], after[PATH_MAX];
  const char *top = live_path("tree");
  CHECK(mkdir(top, 0755) == 0 || errno == EEXIST);
  CHECK(mkdir(live_path("tree/sub"), 0755) == 0 || errno == EEXIST);
  int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int o_path = open(top, O_PATH | O_DIRECTORY);
  CHECK(fd >= 0 && o_path >= 0);
  close(openat(fd, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  CHECK(chdir(live_path("tree/sub")) == 0);
  CHECK(getcwd(before, sizeof before));

  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(fchdir(fd) == 0);
    live_gate_pass(gate);
    live_wait();
    CHECK(getcwd(after, sizeof after) && strcmp(after, top) == 0, "the child is in %s", after);
    CHECK(access("sub", F_OK) == 0);
    _exit(0);
  }
  live_gate_await(gate, 1);
  // Read one entry only: the position must survive.
  char small[32];
  long got = syscall(SYS_getdents64, fd, small, sizeof small);
  CHECK(got > 0);
  off_t position = lseek(fd, 0, SEEK_CUR);
  live_ready();
  live_wait();

  CHECK(getcwd(after, sizeof after) && strcmp(before, after) == 0, "cwd is %s", after);
  CHECK(lseek(fd, 0, SEEK_CUR) == position);
  CHECK(faccessat(fd, "file", F_OK, 0) == 0 && faccessat(o_path, "sub", F_OK, 0) == 0);
  CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC && fcntl(o_path, F_GETFD) == 0);
  CHECK(open("made-after", O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0);
  CHECK(access(live_path("tree/sub/made-after"), F_OK) == 0);
  live_reap_ok(child);
  live_ok();
}
