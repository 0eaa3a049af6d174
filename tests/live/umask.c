// SPDX-License-Identifier: Apache-2.0
// The file mode creation mask, one per task; umask(2).
#include "live.h"

int main(int argc, char **argv) {
  live_init(argc, argv);
  umask(0027);
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    umask(0);
    live_gate_pass(gate);
    live_wait();
    CHECK(umask(0) == 0);
    _exit(0);
  }
  live_gate_await(gate, 1);
  live_ready();
  live_wait();
  int fd = open(live_path("masked"), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  struct stat status;
  CHECK(fd >= 0 && fstat(fd, &status) == 0 && (status.st_mode & 0777) == 0640, "mode %o", status.st_mode);
  mode_t mask = umask(0);
  CHECK(mask == 0027, "umask %o", mask);
  live_reap_ok(child);
  live_ok();
}
