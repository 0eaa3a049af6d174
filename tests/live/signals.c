// SPDX-License-Identifier: Apache-2.0
// Signal actions (flags, masks, ignored), blocked signals, and pending ones: to the process and to a thread,
// queued real-time signals with their values in order; signal(7), sigqueue(3).
#include "live.h"
#include <pthread.h>

static volatile int last_signal, last_value;
static void simple(int s) { last_signal = s; }
static void with_info(int s, siginfo_t *info, void *context) {
  (void)context;
  last_signal = s;
  last_value = info->si_value.sival_int;
}

struct kernel_action { void *handler; unsigned long flags; void *restorer; uint64_t mask; };
static struct kernel_action actions[65];
static int get_action(int s, struct kernel_action *into) { return syscall(SYS_rt_sigaction, s, NULL, into, 8); }

static void install(int s, void *handler, int flags, int also_blocked) {
  struct sigaction action = {.sa_flags = flags};
  if (flags & SA_SIGINFO) action.sa_sigaction = handler; else action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  if (also_blocked) sigaddset(&action.sa_mask, also_blocked);
  CHECK(sigaction(s, &action, NULL) == 0);
}

static int thread_ready, thread_checked;
static void *other_thread(void *unused) {
  (void)unused;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  sigaddset(&set, SIGRTMIN + 5);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  CHECK(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR2) == 0);
  siginfo_t info = {.si_code = SI_QUEUE, .si_pid = getpid(), .si_uid = getuid(), .si_value.sival_int = 555};
  CHECK(syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGRTMIN + 5, &info) == 0);
  __atomic_store_n(&thread_ready, 1, __ATOMIC_SEQ_CST);
  while (access(live_go_path, F_OK)) live_pause();
  CHECK(sigpending(&set) == 0 && sigismember(&set, SIGUSR2) && sigismember(&set, SIGRTMIN + 5));
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 5);
  struct timespec none = {0, 0};
  CHECK(sigtimedwait(&set, &info, &none) == SIGRTMIN + 5 && info.si_value.sival_int == 555 && info.si_code == SI_QUEUE);
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  // The C library's wrapper would turn SI_TKILL into SI_USER.
  CHECK(syscall(SYS_rt_sigtimedwait, &set, &info, &none, 8) == SIGUSR2 && info.si_code == SI_TKILL && info.si_pid == getpid());
  __atomic_store_n(&thread_checked, 1, __ATOMIC_SEQ_CST);
  return NULL;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  install(SIGUSR1, simple, SA_RESTART, SIGTERM);
  install(SIGTERM, with_info, SA_SIGINFO | SA_NODEFER | SA_RESETHAND, 0);
  install(SIGHUP, SIG_IGN, 0, 0);
  install(SIGCHLD, SIG_DFL, SA_NOCLDWAIT | SA_NOCLDSTOP, 0);
  install(SIGRTMIN + 3, with_info, SA_SIGINFO | SA_ONSTACK, SIGUSR1);
  install(SIGWINCH, simple, 0, 0);

  sigset_t blocked;
  sigemptyset(&blocked);
  int kBlocked[] = {SIGINT, SIGUSR2, SIGRTMIN + 3, SIGRTMIN + 4, SIGQUIT};
  for (int i = 0; i < 5; i++) sigaddset(&blocked, kBlocked[i]);
  CHECK(sigprocmask(SIG_SETMASK, &blocked, NULL) == 0);

  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0);
  while (!__atomic_load_n(&thread_ready, __ATOMIC_SEQ_CST)) live_pause();

  CHECK(kill(getpid(), SIGINT) == 0);
  for (int i = 0; i < 5; i++) CHECK(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 100 + i}) == 0);
  CHECK(sigqueue(getpid(), SIGRTMIN + 4, (union sigval){.sival_int = 7}) == 0);
  CHECK(syscall(SYS_tgkill, getpid(), getpid(), SIGQUIT) == 0);
  for (int s = 1; s < 65; s++) CHECK(get_action(s, &actions[s]) == 0);
  live_ready();
  live_wait();

  for (int s = 1; s < 65; s++) {
    struct kernel_action now;
    CHECK(get_action(s, &now) == 0);
    CHECK(now.handler == actions[s].handler && now.flags == actions[s].flags && now.mask == actions[s].mask &&
              now.restorer == actions[s].restorer,
          "signal %d: handler %p->%p flags %#lx->%#lx", s, actions[s].handler, now.handler, actions[s].flags, now.flags);
  }
  while (!__atomic_load_n(&thread_checked, __ATOMIC_SEQ_CST)) live_pause();
  sigset_t now, pending;
  CHECK(sigprocmask(SIG_SETMASK, NULL, &now) == 0 && sigpending(&pending) == 0);
  for (int s = 1; s < 65; s++) {
    int want = 0;
    for (int i = 0; i < 5; i++) want |= kBlocked[i] == s;
    CHECK(sigismember(&now, s) == want || s == 32 || s == 33, "signal %d blocked: %d", s, sigismember(&now, s));
  }
  CHECK(sigismember(&pending, SIGINT) && sigismember(&pending, SIGQUIT) && sigismember(&pending, SIGRTMIN + 3) &&
        sigismember(&pending, SIGRTMIN + 4) && !sigismember(&pending, SIGUSR1), "pending signals are lost");

  siginfo_t info;
  struct timespec none = {0, 0};
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, SIGRTMIN + 3);
  for (int i = 0; i < 5; i++)
    CHECK(sigtimedwait(&one, &info, &none) == SIGRTMIN + 3 && info.si_value.sival_int == 100 + i && info.si_code == SI_QUEUE,
          "queued signal %d has value %d", i, info.si_value.sival_int);
  CHECK(sigtimedwait(&one, &info, &none) < 0 && errno == EAGAIN, "a queued signal too many");
  sigemptyset(&one);
  sigaddset(&one, SIGINT);
  CHECK(sigtimedwait(&one, &info, &none) == SIGINT && info.si_code == SI_USER && info.si_pid == getpid());

  CHECK(raise(SIGUSR1) == 0 && last_signal == SIGUSR1);
  CHECK(raise(SIGHUP) == 0);
  CHECK(sigqueue(getpid(), SIGTERM, (union sigval){.sival_int = 31}) == 0 && last_signal == SIGTERM && last_value == 31);
  CHECK(get_action(SIGTERM, &actions[0]) == 0 && actions[0].handler == (void *)SIG_DFL, "SA_RESETHAND is lost");
  CHECK(pthread_join(thread, NULL) == 0);
  live_ok();
}
