// SPDX-License-Identifier: Apache-2.0
// A session and a process group whose leader has exited and been reaped: their ids live on in the members.
#include "live.h"

int main(int argc, char **argv) {
  live_init(argc, argv);
  CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  struct live_gate gate = live_gate_open();
  pid_t leader = fork();
  CHECK(leader >= 0);
  if (leader == 0) {
    pid_t first = setsid();
    CHECK(first > 0);
    for (int background = 0; background < 2; background++)
      if (fork() == 0) {
        while (getppid() == first) live_pause();
        if (background) CHECK(setpgid(0, 0) == 0);
        pid_t sid = getsid(0), pgid = getpgrp(), pid = getpid();
        live_gate_pass(gate);
        live_wait();
        CHECK(getsid(0) == sid && getpgrp() == pgid && getpid() == pid, "session %d->%d group %d->%d", sid, getsid(0),
              pgid, getpgrp());
        _exit(0);
      }
    _exit(0);
  }
  live_reap_ok(leader);
  live_gate_await(gate, 2);
  live_ready();
  live_wait();
  int status, seen = 0;
  while (wait(&status) > 0) {
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    seen++;
  }
  CHECK(seen == 2, "%d members left", seen);
  live_ok();
}
