// SPDX-License-Identifier: Apache-2.0
// signalfd(2): masks, flags, signals that were queued before and come after, a thread and a child that wait for one.
#include "live.h"
#include <pthread.h>
#include <sys/signalfd.h>

static sigset_t set_of(int a, int b) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, a);
  if (b) sigaddset(&set, b);
  return set;
}
static struct signalfd_siginfo take(int fd) {
  struct signalfd_siginfo info = {};
  ssize_t n = read(fd, &info, sizeof info);
  CHECK(n == sizeof info || (n < 0 && errno == EAGAIN), "%zd", n);
  return info;
}
static int waited_for;
static void *waits(void *unused) {
  (void)unused;
  CHECK(take(waited_for).ssi_signo == SIGUSR2);
  return NULL;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  sigset_t all, two = set_of(SIGUSR1, SIGRTMIN + 3), other = set_of(SIGUSR2, 0), changed = set_of(SIGHUP, 0);
  sigfillset(&all);
  CHECK(sigprocmask(SIG_BLOCK, &all, NULL) == 0);
  int fd = signalfd(-1, &two, SFD_NONBLOCK | SFD_CLOEXEC), late = signalfd(-1, &other, SFD_NONBLOCK);
  waited_for = signalfd(-1, &other, 0);
  CHECK(fd >= 0 && late >= 0 && waited_for >= 0 && signalfd(late, &changed, 0) == late);
  union sigval seven = {.sival_int = 7}, eight = {.sival_int = 8};
  CHECK(sigqueue(getpid(), SIGRTMIN + 3, seven) == 0 && sigqueue(getpid(), SIGRTMIN + 3, eight) == 0);
  kill(getpid(), SIGUSR1);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, waits, NULL) == 0);
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  if (child == 0) {
    kill(getpid(), SIGHUP);
    live_gate_pass(gate);
    CHECK(take(waited_for).ssi_signo == SIGUSR2);  // its own queue, through the descriptor it shares
    CHECK(take(late).ssi_signo == SIGHUP && take(late).ssi_signo == 0);
    _exit(0);
  }
  live_gate_await(gate, 1);
  live_ready();
  live_wait();

  CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC && fcntl(fd, F_GETFL) & O_NONBLOCK && !(fcntl(waited_for, F_GETFL) & O_NONBLOCK));
  struct signalfd_siginfo info = take(fd);
  CHECK(info.ssi_signo == SIGUSR1 && info.ssi_pid == (uint32_t)getpid(), "%u from %u", info.ssi_signo, info.ssi_pid);
  for (int i = 7; i <= 8; i++) {
    info = take(fd);
    CHECK(info.ssi_signo == (uint32_t)SIGRTMIN + 3 && info.ssi_int == i, "%u %d", info.ssi_signo, info.ssi_int);
  }
  CHECK(take(fd).ssi_signo == 0);
  kill(getpid(), SIGHUP);
  CHECK(take(fd).ssi_signo == 0 && take(late).ssi_signo == SIGHUP);
  kill(getpid(), SIGUSR2);
  CHECK(pthread_join(thread, NULL) == 0);
  kill(child, SIGUSR2);
  live_reap_ok(child);
  live_ok();
}
