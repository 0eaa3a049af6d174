// SPDX-License-Identifier: Apache-2.0
// A child stopped by SIGSTOP: it must still be stopped, its parent not be told twice, and SIGCONT must wake it. Another
// gets a signal while it is stopped in pause(2): the handler runs after SIGCONT, and then the call must return.
#include "live.h"

static char state_of(pid_t pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  return strrchr(live_read_file(path, text, sizeof text), ')')[2];
}

static void handler(int s) { (void)s; }

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
  signal(SIGUSR1, handler);
  pid_t pausing = fork();
  CHECK(pausing >= 0);
  if (pausing == 0) {
    CHECK(pause() < 0 && errno == EINTR);
    _exit(0);
  }
  while (state_of(pausing) != 'S') live_pause();
  int status;
  CHECK(kill(child, SIGSTOP) == 0);
  CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
  CHECK(kill(pausing, SIGSTOP) == 0 && waitpid(pausing, &status, WUNTRACED) == pausing && WIFSTOPPED(status));
  CHECK(kill(pausing, SIGUSR1) == 0);
  live_ready();
  live_wait();

  for (int i = 0; i < 20; i++) live_pause();
  CHECK(state_of(child) == 'T', "the stopped child is in state %c", state_of(child));
  CHECK(kill(child, SIGCONT) == 0);
  int fd = open(live_path("continued"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  live_reap_ok(child);
  CHECK(kill(pausing, SIGCONT) == 0);
  live_reap_ok(pausing);
  live_ok();
}
