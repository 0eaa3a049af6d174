// SPDX-License-Identifier: Apache-2.0
// A task that makes children by vfork(2) all the time, some of which take their time to end: a checkpoint waits for
// them, and never shows the parent's memory being borrowed.
#include "live.h"

int main(int argc, char **argv) {
  live_init(argc, argv);
  int ready = 0;
  const struct timespec moment = {0, 200 * 1000 * 1000};
  for (int i = 0; access(live_go_path, F_OK); i++) {
    volatile int seen = 0;
    pid_t pid = vfork();
    if (pid == 0) {
      seen = i + 1;
      syscall(SYS_nanosleep, &moment, NULL);
      _exit(i % 100);
    }
    CHECK(pid > 0 && seen == i + 1);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == i % 100, "child %d: %#x", i, status);
    if (!ready++) live_ready();
  }
  live_ok();
}
