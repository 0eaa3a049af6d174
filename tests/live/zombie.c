// SPDX-License-Identifier: Apache-2.0
// Children that have died and are not reaped: exit status and signal death must be there to wait for; wait(2).
#include "live.h"

int main(int argc, char **argv) {
  live_init(argc, argv);
  pid_t exited = fork();
  if (exited == 0) _exit(37);
  pid_t killed = fork();
  if (killed == 0) {
    raise(SIGKILL);
    _exit(0);
  }
  pid_t grouped = fork();  // a zombie that leads a process group and a session
  if (grouped == 0) {
    setsid();
    _exit(0);
  }
  CHECK(exited > 0 && killed > 0 && grouped > 0);
  siginfo_t info;
  pid_t pids[] = {exited, killed, grouped};
  for (int i = 0; i < 3; i++) CHECK(waitid(P_PID, pids[i], &info, WEXITED | WNOWAIT) == 0);
  live_ready();
  live_wait();

  int status;
  CHECK(waitpid(exited, &status, WNOHANG) == exited && WIFEXITED(status) && WEXITSTATUS(status) == 37, "%#x", status);
  CHECK(waitpid(killed, &status, WNOHANG) == killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%#x", status);
  CHECK(waitpid(grouped, &status, WNOHANG) == grouped && WIFEXITED(status) && WEXITSTATUS(status) == 0, "%#x", status);
  CHECK(wait(&status) < 0 && errno == ECHILD);
  live_ok();
}
