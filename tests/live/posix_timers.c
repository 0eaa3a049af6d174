// SPDX-License-Identifier: Apache-2.0
// POSIX timers: numbers with gaps, every clock and way to notify, time left, intervals, overruns, and expirations that
// are still queued; timer_create(2). Each is made by the bare system call, which shows the number.
#include "live.h"
#include <pthread.h>
#include <sys/syscall.h>

enum { kSignal = 44, kThreadSignal = 46, kPendingSignal = 48, kOverrunSignal = 50, kFarAway = 9000 };

static int make(int clock, int notify, int signal, uint64_t value, pid_t tid) {
  struct sigevent event = {.sigev_notify = notify, .sigev_signo = signal};
  event.sigev_value.sival_ptr = (void *)value;
  event._sigev_un._tid = tid;
  int id = -1;
  if (syscall(SYS_timer_create, clock, &event, &id)) return -1;
  return id;
}
static void set(int id, int flags, long seconds, long nanoseconds, long interval_ns) {
  struct itimerspec value = {{interval_ns / 1000000000, interval_ns % 1000000000}, {seconds, nanoseconds}};
  CHECK(syscall(SYS_timer_settime, id, flags, &value, NULL) == 0, "timer %d", id);
}
static struct itimerspec get(int id) {
  struct itimerspec now;
  CHECK(syscall(SYS_timer_gettime, id, &now) == 0, "timer %d is lost", id);
  return now;
}
static void block(int signal) {
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, signal);
  CHECK(pthread_sigmask(SIG_BLOCK, &one, NULL) == 0);
}
static siginfo_t take(int signal) {
  sigset_t one;
  siginfo_t info;
  sigemptyset(&one);
  sigaddset(&one, signal);
  struct timespec limit = {20, 0};
  long got;
  do got = syscall(SYS_rt_sigtimedwait, &one, &info, &limit, 8);
  while (got < 0 && errno == EINTR);
  CHECK(got == signal, "signal %d does not come", signal);
  return info;
}
static int pending(int signal) {
  sigset_t set;
  CHECK(sigpending(&set) == 0);
  return sigismember(&set, signal);
}

static int thread_ready, own_clock, idle_clock, told, far_told;
static pid_t thread_tid;
static void *other_thread(void *unused) {
  (void)unused;
  thread_tid = syscall(SYS_gettid);
  block(kThreadSignal);
  // A timer on the caller's own CPU clock belongs to this thread, armed or not.
  CHECK((own_clock = make(CLOCK_THREAD_CPUTIME_ID, SIGEV_SIGNAL, kSignal, 1, 0)) >= 0);
  CHECK((idle_clock = make(CLOCK_THREAD_CPUTIME_ID, SIGEV_SIGNAL, kSignal, 2, 0)) >= 0);
  set(own_clock, 0, kFarAway, 0, 0);
  CHECK((told = make(CLOCK_MONOTONIC, SIGEV_THREAD_ID, kThreadSignal, 77, thread_tid)) >= 0);
  set(told, 0, 0, 50000000, 50000000);
  CHECK((far_told = make(CLOCK_MONOTONIC, SIGEV_THREAD_ID, kThreadSignal, 78, thread_tid)) >= 0);
  __atomic_store_n(&thread_ready, 1, __ATOMIC_SEQ_CST);
  while (access(live_go_path, F_OK)) live_pause();

  set(idle_clock, 0, kFarAway, 0, 0);
  struct itimerspec own = get(own_clock), idle = get(idle_clock), now;
  volatile unsigned long spins = 0;
  do spins++, now = get(own_clock);
  while (own.it_value.tv_sec == now.it_value.tv_sec && own.it_value.tv_nsec - now.it_value.tv_nsec < 1000000 && spins < 100000000);
  now = get(idle_clock);
  CHECK(now.it_value.tv_nsec != idle.it_value.tv_nsec, "the idle timer is not on this thread's clock any more");
  for (int i = 0; i < 3; i++) {  // to this thread, and nobody else
    siginfo_t info = take(kThreadSignal);
    CHECK(info.si_code == SI_TIMER && info.si_timerid == told && info.si_value.sival_int == 77, "timer %d of %d", info.si_timerid, told);
  }
  set(told, 0, 0, 0, 0);
  return NULL;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  block(kSignal), block(kPendingSignal), block(kPendingSignal + 1), block(kOverrunSignal), block(kOverrunSignal + 1);
  static const int kClocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI, CLOCK_PROCESS_CPUTIME_ID};
  enum { kCount = sizeof kClocks / sizeof *kClocks };
  int ids[kCount], gone[kCount];
  for (int i = 0; i < kCount; i++) {  // numbers with gaps
    CHECK((gone[i] = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0)) >= 0);
    CHECK((ids[i] = make(kClocks[i], SIGEV_SIGNAL, kSignal, 0x1234500000000ul + i, 0)) >= 0, "clock %d", kClocks[i]);
    set(ids[i], 0, kFarAway, 0, (long)(i + 1) * 2000000000);
    if (i != 1) CHECK(syscall(SYS_timer_delete, gone[i]) == 0);
  }
  clockid_t by_pid = ~getpid() << 3 | 2;  // clock_getcpuclockid(3)
  int alarm_clock = make(8 /* CLOCK_REALTIME_ALARM */, SIGEV_SIGNAL, kSignal, 8, 0);  // only with a clock that can wake the machine
  int of_pid = make(by_pid, SIGEV_SIGNAL, kSignal, 9, 0), silent = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
  CHECK(of_pid >= 0 && silent >= 0);
  set(of_pid, 0, kFarAway, 0, 0);
  set(silent, 0, 0, 1000000, 5000000000000);
  if (alarm_clock >= 0) set(alarm_clock, 0, kFarAway, 0, 0);
  for (int i = 0; i < 2000; i++) {  // a number that is far off
    int one = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
    CHECK(one >= 0 && syscall(SYS_timer_delete, one) == 0);
  }
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0);
  while (!__atomic_load_n(&thread_ready, __ATOMIC_SEQ_CST)) live_pause();

  // Expired, not taken: once, and again and again, with other signals before and behind in the queue.
  int once = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, kPendingSignal, 100, 0), often = make(CLOCK_REALTIME, SIGEV_SIGNAL, kPendingSignal + 1, 200, 0);
  CHECK(sigqueue(getpid(), kPendingSignal, (union sigval){.sival_int = 1}) == 0);
  set(once, 0, 0, 1, 0);
  while (get(once).it_value.tv_sec || get(once).it_value.tv_nsec) {}
  CHECK(sigqueue(getpid(), kPendingSignal, (union sigval){.sival_int = 2}) == 0);
  set(often, 0, 0, 1, 20000000);
  while (!pending(kPendingSignal + 1)) {}

  // A known number of overruns: it began 7.5 intervals ago.
  int overrun = make(CLOCK_REALTIME, SIGEV_SIGNAL, kOverrunSignal, 300, 0);
  struct timespec now;
  CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
  set(overrun, TIMER_ABSTIME, now.tv_sec - 7500000, now.tv_nsec, 1000000000000000);
  CHECK(take(kOverrunSignal).si_overrun == 7 && syscall(SYS_timer_getoverrun, overrun) == 7);
  // The same, and the signal not taken: the count is part of it.
  int stuck = make(CLOCK_REALTIME, SIGEV_SIGNAL, kOverrunSignal + 1, 301, 0);
  set(stuck, TIMER_ABSTIME, now.tv_sec - 3500000, now.tv_nsec, 1000000000000000);
  while (!pending(kOverrunSignal + 1)) {}
  int disarmed = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, kSignal, 1, 0);
  live_ready();
  live_wait();

  for (int i = 0; i < kCount; i++) {
    struct itimerspec left = get(ids[i]);
    CHECK(left.it_interval.tv_sec == (i + 1) * 2 && left.it_interval.tv_nsec == 0, "clock %d: interval %ld", kClocks[i], left.it_interval.tv_sec);
    CHECK(left.it_value.tv_sec > kFarAway - 1000 && left.it_value.tv_sec < kFarAway, "clock %d: %ld s left", kClocks[i], left.it_value.tv_sec);
    struct itimerspec none;
    CHECK(i == 1 || (syscall(SYS_timer_gettime, gone[i], &none) < 0 && errno == EINVAL), "timer %d was deleted", gone[i]);
  }
  CHECK(get(gone[1]).it_value.tv_sec == 0 && get(disarmed).it_value.tv_sec == 0);
  CHECK(get(of_pid).it_value.tv_sec > kFarAway - 1000 && (alarm_clock < 0 || get(alarm_clock).it_value.tv_sec > kFarAway - 1000));
  struct itimerspec every = get(silent);
  CHECK(every.it_interval.tv_sec == 5000 && every.it_value.tv_sec > 4000 && every.it_value.tv_sec < 5000, "%ld s left", every.it_value.tv_sec);
  every = get(overrun);
  CHECK(every.it_value.tv_sec > 490000 && every.it_value.tv_sec <= 500000, "%ld s left of 500000", every.it_value.tv_sec);
  CHECK(syscall(SYS_timer_getoverrun, overrun) == 7, "overrun %ld", syscall(SYS_timer_getoverrun, overrun));

  siginfo_t info = take(kPendingSignal);
  CHECK(info.si_code == SI_QUEUE && info.si_value.sival_int == 1);
  info = take(kPendingSignal);
  CHECK(info.si_code == SI_TIMER && info.si_timerid == once && info.si_value.sival_int == 100 && info.si_overrun == 0, "code %d timer %d", info.si_code, info.si_timerid);
  info = take(kPendingSignal);
  CHECK(info.si_code == SI_QUEUE && info.si_value.sival_int == 2);
  info = take(kOverrunSignal + 1);
  CHECK(info.si_code == SI_TIMER && info.si_timerid == stuck && info.si_overrun == 3, "overrun %d", info.si_overrun);
  every = get(stuck);
  CHECK(every.it_value.tv_sec > 490000 && every.it_value.tv_sec <= 500000, "%ld s left of 500000", every.it_value.tv_sec);
  for (int i = 0; i < 3; i++) {  // goes on
    info = take(kPendingSignal + 1);
    CHECK(info.si_code == SI_TIMER && info.si_timerid == often && info.si_value.sival_int == 200);
  }
  CHECK(!pending(kPendingSignal), "a signal too many");
  CHECK(pthread_join(thread, NULL) == 0);

  set(ids[1], 0, 0, 1000000, 0);  // it tells what it told
  info = take(kSignal);
  CHECK(info.si_code == SI_TIMER && info.si_timerid == ids[1] && (uint64_t)info.si_value.sival_ptr == 0x1234500000001ul);
  int later = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);  // numbers go on as usual
  CHECK(later > disarmed);
  live_ok();
}
