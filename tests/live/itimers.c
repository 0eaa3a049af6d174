// SPDX-License-Identifier: Apache-2.0
// The three interval timers, armed far ahead so that only their remaining time is looked at; and one
// that does fire; setitimer(2).
#include "live.h"
#include <sys/time.h>

static volatile int ticks;
static void tick(int s) { (void)s; ticks++; }

int main(int argc, char **argv) {
  live_init(argc, argv);
  signal(SIGALRM, tick);
  signal(SIGVTALRM, SIG_IGN);
  signal(SIGPROF, SIG_IGN);
  struct itimerval real = {{0, 250000}, {0, 100000}}, virtual = {{3000, 0}, {5000, 0}}, prof = {{0, 0}, {7000, 500}}, now;
  CHECK(setitimer(ITIMER_VIRTUAL, &virtual, NULL) == 0 && setitimer(ITIMER_PROF, &prof, NULL) == 0);
  int armed[2];
  CHECK(pipe(armed) == 0);
  pid_t resting = fork();  // expired, and its signal not taken: it must fire on when it is
  CHECK(resting >= 0);
  if (resting == 0) {
    sigset_t alarm, pending;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    CHECK(sigprocmask(SIG_BLOCK, &alarm, NULL) == 0 && setitimer(ITIMER_REAL, &real, NULL) == 0);
    do CHECK(sigpending(&pending) == 0);
    while (!sigismember(&pending, SIGALRM));
    CHECK(close(armed[1]) == 0 && close(armed[0]) == 0);
    live_wait();
    CHECK(sigprocmask(SIG_UNBLOCK, &alarm, NULL) == 0);
    while (ticks < 3) live_pause();
    _exit(0);
  }
  char end;
  CHECK(close(armed[1]) == 0 && read(armed[0], &end, 1) == 0 && close(armed[0]) == 0);
  pid_t child = fork();  // timers are not inherited: the child has one of its own, one-shot
  CHECK(child >= 0);
  if (child == 0) {
    struct itimerval far = {{0, 0}, {9000, 0}};
    CHECK(setitimer(ITIMER_REAL, &far, NULL) == 0);
    live_wait();
    CHECK(getitimer(ITIMER_REAL, &now) == 0 && now.it_interval.tv_sec == 0 && now.it_interval.tv_usec == 0);
    CHECK(now.it_value.tv_sec > 8000 && now.it_value.tv_sec <= 9000, "%ld s left of 9000", now.it_value.tv_sec);
    CHECK(getitimer(ITIMER_PROF, &now) == 0 && now.it_value.tv_sec == 0);
    _exit(0);
  }
  CHECK(setitimer(ITIMER_REAL, &real, NULL) == 0);
  live_ready();
  live_wait();

  CHECK(getitimer(ITIMER_VIRTUAL, &now) == 0);
  CHECK(now.it_interval.tv_sec == 3000 && now.it_value.tv_sec > 4900 && now.it_value.tv_sec <= 5000, "virtual %ld", now.it_value.tv_sec);
  CHECK(getitimer(ITIMER_PROF, &now) == 0);
  CHECK(now.it_interval.tv_sec == 0 && now.it_value.tv_sec > 6900 && now.it_value.tv_sec <= 7000, "prof %ld", now.it_value.tv_sec);
  CHECK(getitimer(ITIMER_REAL, &now) == 0 && now.it_interval.tv_usec == 250000);
  int seen = ticks;
  while (ticks < seen + 2) live_pause();  // it still fires, again and again
  live_reap_ok(child);
  live_reap_ok(resting);
  live_ok();
}
