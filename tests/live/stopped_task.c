// SPDX-License-Identifier: Apache-2.0
// A child stopped by SIGSTOP: it must still be stopped, its parent not be told twice, and SIGCONT must wake it.
#include "live.h"

static char state_of(pid_t pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  return strrchr(live_read_file(path, text, sizeof text), ')')[2];
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  struct live_gate gate = live_gate_open();
  volatile unsigned long counter = 0;
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    live_gate_pass(gate);
    while (access(live_path("continued"), F_OK)) counter++, live_pause();
    _exit(0);
  }
  live_gate_await(gate, 1);
  int status;
  CHECK(kill(child, SIGSTOP) == 0);
  CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
  live_ready();
  live_wait();

  for (int i = 0; i < 20; i++) live_pause();
  CHECK(state_of(child) == 'T', "the stopped child is in state %c", state_of(child));
  CHECK(kill(child, SIGCONT) == 0);
  int fd = open(live_path("continued"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  live_reap_ok(child);
  live_ok();
}
