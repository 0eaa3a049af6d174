// SPDX-License-Identifier: Apache-2.0
// A thread that does nothing but read clocks by the vDSO, so that it is likely to be stopped in there; and each clock still says
// what the system call says, after a restore too.
#include "live.h"
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/time.h>

static volatile int stop;
static volatile unsigned long reads;

static int64_t ns(const struct timespec *t) { return t->tv_sec * 1000000000LL + t->tv_nsec; }

static void *spin(void *unused) {
  int64_t last = 0;
  while (!stop) {
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    CHECK(ns(&now) >= last, "CLOCK_MONOTONIC went back by %ld ns", (long)(last - ns(&now)));
    last = ns(&now);
    reads++;
  }
  return unused;
}

static void compare(clockid_t clock) {
  struct timespec before, fast, after;
  CHECK(syscall(SYS_clock_gettime, clock, &before) == 0);
  CHECK(clock_gettime(clock, &fast) == 0);
  CHECK(syscall(SYS_clock_gettime, clock, &after) == 0);
  // Coarse clocks have the grain of a tick.
  CHECK(ns(&before) <= ns(&fast) + 10000000 && ns(&fast) <= ns(&after), "clock %d: %ld %ld %ld", clock, (long)ns(&before), (long)ns(&fast),
        (long)ns(&after));
}

static void all_clocks(void) {
  static const clockid_t kClocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME_COARSE, CLOCK_TAI};
  for (size_t i = 0; i < sizeof kClocks / sizeof *kClocks; i++) compare(kClocks[i]);
  struct timeval day;
  struct timespec now, resolution;
  CHECK(gettimeofday(&day, NULL) == 0 && syscall(SYS_clock_gettime, CLOCK_REALTIME, &now) == 0);
  CHECK(llabs(day.tv_sec - (long long)now.tv_sec) <= 1);
  CHECK(llabs((long long)time(NULL) - (long long)now.tv_sec) <= 1);
  CHECK(clock_getres(CLOCK_MONOTONIC, &resolution) == 0 && ns(&resolution) > 0);
  unsigned cpu = ~0u, node = ~0u;
  CHECK(getcpu(&cpu, &node) == 0 && cpu < 4096 && node < 1024, "cpu %u node %u", cpu, node);
  CHECK(getauxval(AT_SYSINFO_EHDR) != 0 && memcmp((void *)getauxval(AT_SYSINFO_EHDR), "\177ELF", 4) == 0);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, spin, NULL) == 0);
  all_clocks();
  live_ready();
  live_wait();
  unsigned long then = reads;
  while (reads == then) live_pause();
  all_clocks();
  stop = 1;
  CHECK(pthread_join(thread, NULL) == 0);
  live_ok();
}
