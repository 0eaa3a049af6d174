// SPDX-License-Identifier: Apache-2.0
// The clocks of a time namespace, and of a container in the host's time: they go on, by the vDSO and by system call, and
// so do sleeps until a time of theirs; time_namespaces(7). A child that has been asleep all the while sees the same.
#include "live.h"

static const clockid_t kClocks[] = {CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME};
enum { kCount = sizeof kClocks / sizeof *kClocks };
static const int64_t kJump = 100000ll * 1000000000;  // the runner's offsets are greater

static int64_t by_vdso(clockid_t clock) {
  struct timespec t;
  CHECK(clock_gettime(clock, &t) == 0);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}
static int64_t by_call(clockid_t clock) {
  struct timespec t;
  CHECK(syscall(SYS_clock_gettime, clock, &t) == 0);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}
static void read_clocks(int64_t into[kCount]) {
  for (int i = 0; i < kCount; i++) {
    int64_t first = by_call(kClocks[i]), second = by_vdso(kClocks[i]), third = by_call(kClocks[i]);
    CHECK(first <= second && second <= third, "clock %d: %lld %lld %lld", kClocks[i], (long long)first, (long long)second, (long long)third);
    into[i] = second;
  }
}
static void go_on_from(const int64_t before[kCount]) {
  int64_t now[kCount];
  read_clocks(now);
  for (int i = 0; i < kCount; i++)
    CHECK(now[i] >= before[i] && now[i] - before[i] < kJump, "clock %d was at %lld and is at %lld", kClocks[i], (long long)before[i],
          (long long)now[i]);
}
static void sleep_until(clockid_t clock, int64_t when) {
  struct timespec t = {when / 1000000000, when % 1000000000};
  int error;
  while ((error = clock_nanosleep(clock, TIMER_ABSTIME, &t, NULL)) == EINTR);
  CHECK(error == 0 && by_vdso(clock) >= when, "%s", strerror(error));
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  int64_t before[kCount], started;
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  if (child == 0) {
    read_clocks(before);
    live_gate_pass(gate);
    live_wait();
    go_on_from(before);
    _exit(0);
  }
  live_gate_await(gate, 1);
  read_clocks(before);
  started = before[0];
  live_ready();
  // Ends after the first look of the runner at the earliest; a clock that jumps ahead is seen below, one that jumps back hangs.
  while (access(live_go_path, F_OK)) sleep_until(CLOCK_MONOTONIC, by_vdso(CLOCK_MONOTONIC) + 20000000);
  live_wait();
  go_on_from(before);
  sleep_until(CLOCK_BOOTTIME, by_vdso(CLOCK_BOOTTIME) + 20000000);
  sleep_until(CLOCK_MONOTONIC, started);
  live_reap_ok(child);
  live_ok();
}
