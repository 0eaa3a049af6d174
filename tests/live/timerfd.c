// SPDX-License-Identifier: Apache-2.0
// timerfd_create(2): relative, absolute on three clocks, periodic, disarmed, expirations not yet read, cancelled by a
// change of the clock, shared with a child that waits. What is said to be left may only become less, and not by more
// than has passed.
#include "live.h"
#include <sys/timerfd.h>

static void set(int fd, int flags, long sec, long nsec, long every_ns) {
  struct itimerspec value = {{every_ns / 1000000000, every_ns % 1000000000}, {sec, nsec}};
  CHECK(timerfd_settime(fd, flags, &value, NULL) == 0);
}
static struct itimerspec get(int fd) {
  struct itimerspec value;
  CHECK(timerfd_gettime(fd, &value) == 0);
  return value;
}
static uint64_t ticks(int fd) {
  uint64_t value = 0;
  ssize_t n = read(fd, &value, sizeof value);
  CHECK(n == 8 || (n < 0 && errno == EAGAIN));
  return n == 8 ? value : 0;
}
static struct timespec now(int clock) {
  struct timespec t;
  CHECK(clock_gettime(clock, &t) == 0);
  return t;
}
static double seconds(struct timespec t) { return t.tv_sec + t.tv_nsec / 1e9; }
static uint32_t settime_flags(int fd) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  const char *at = strstr(live_read_file(path, text, sizeof text), "settime flags:");
  return at ? strtoul(at + 14, NULL, 8) : ~0u;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  static const int clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME};
  int relative = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), absolute[3];
  set(relative, 0, 5000, 0, 0);
  struct timespec end[3];
  for (int i = 0; i < 3; i++) {
    absolute[i] = timerfd_create(clocks[i], TFD_NONBLOCK);
    end[i] = now(clocks[i]);
    end[i].tv_sec += 7000 + i;
    set(absolute[i], TFD_TIMER_ABSTIME | (i == 1 ? TFD_TIMER_CANCEL_ON_SET : 0), end[i].tv_sec, end[i].tv_nsec, i == 2 ? 3000000000 : 0);
  }
  int disarmed = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK), expired = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  int periodic = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), rare = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK);
  int shared = timerfd_create(CLOCK_MONOTONIC, 0);
  set(expired, 0, 0, 1, 0);
  set(periodic, 0, 0, 1000000, 1000000);
  set(rare, 0, 0, 1000000, 4000000000000);  // has expired once, and not again for an hour
  set(shared, 0, 6000, 0, 0);
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  if (child == 0) {
    live_gate_pass(gate);
    CHECK(ticks(shared) == 1);  // blocked here while dumped
    _exit(0);
  }
  live_gate_await(gate, 1);
  struct timespec begin = now(CLOCK_MONOTONIC);
  for (int i = 0; i < 5; i++) live_pause();
  live_ready();
  live_wait();

  double left = seconds(get(relative).it_value), passed = seconds(now(CLOCK_MONOTONIC)) - seconds(begin);
  CHECK(left <= 5000 && left > 4999 - passed, "%f left after %f", left, passed);
  CHECK(get(relative).it_interval.tv_sec == 0 && fcntl(relative, F_GETFD) == FD_CLOEXEC && ticks(relative) == 0);
  for (int i = 0; i < 3; i++) {
    struct itimerspec value = get(absolute[i]);
    double should = seconds(end[i]) - seconds(now(clocks[i]));
    CHECK(seconds(value.it_value) - should < 0.5 && seconds(value.it_value) - should > -0.5, "clock %d: %f left, not %f",
          clocks[i], seconds(value.it_value), should);
    CHECK(settime_flags(absolute[i]) == (i == 1 ? 3u : 1u), "clock %d: flags %u", clocks[i], settime_flags(absolute[i]));
    CHECK(value.it_interval.tv_sec == (i == 2 ? 3 : 0));
  }
  CHECK(settime_flags(relative) == 0);
  CHECK(seconds(get(disarmed).it_value) == 0 && ticks(disarmed) == 0);
  CHECK(ticks(expired) == 1 && ticks(expired) == 0 && seconds(get(expired).it_value) == 0);
  passed = seconds(now(CLOCK_MONOTONIC)) - seconds(begin);
  uint64_t count = ticks(periodic);
  CHECK(count >= 45 && count < 1000 * (passed + 0.5), "%lu expirations in %f s", (unsigned long)count, passed);
  while (ticks(periodic) == 0) live_pause();  // and goes on
  CHECK(ticks(rare) == 1, "an expiration was lost or doubled");
  left = seconds(get(rare).it_value);
  CHECK(left <= 4000 && left > 3998 - passed, "%f", left);
  set(shared, 0, 0, 1, 0);
  live_reap_ok(child);
  live_ok();
}
