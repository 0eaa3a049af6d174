// SPDX-License-Identifier: Apache-2.0
// Every resource limit, lowered to odd values in the parent and lower still in a child; getrlimit(2).
#include "live.h"
#include <sys/resource.h>

static void lower(struct rlimit *limits, unsigned long percent) {
  for (int r = 0; r < RLIM_NLIMITS; r++) {
    CHECK(getrlimit(r, &limits[r]) == 0);
    if (r == RLIMIT_STACK || r == RLIMIT_AS || r == RLIMIT_CPU || r == RLIMIT_DATA || r == RLIMIT_NPROC) continue;
    if (limits[r].rlim_max == RLIM_INFINITY) limits[r].rlim_max = 1ul << 40;
    limits[r].rlim_max -= limits[r].rlim_max / 100 * (100 - percent);
    if (limits[r].rlim_cur > limits[r].rlim_max) limits[r].rlim_cur = limits[r].rlim_max;
    if (limits[r].rlim_cur > 100) limits[r].rlim_cur -= r + 1;
    CHECK(setrlimit(r, &limits[r]) == 0, "limit %d", r);
  }
}
static void compare(const char *who, const struct rlimit *was) {
  for (int r = 0; r < RLIM_NLIMITS; r++) {
    struct rlimit now;
    CHECK(getrlimit(r, &now) == 0);
    CHECK(now.rlim_cur == was[r].rlim_cur && now.rlim_max == was[r].rlim_max, "%s: limit %d: %lu/%lu -> %lu/%lu", who, r,
          was[r].rlim_cur, was[r].rlim_max, now.rlim_cur, now.rlim_max);
  }
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  struct rlimit limits[RLIM_NLIMITS];
  lower(limits, 90);
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    lower(limits, 80);
    live_gate_pass(gate);
    live_wait();
    compare("child", limits);
    _exit(0);
  }
  live_gate_await(gate, 1);
  live_ready();
  live_wait();
  compare("parent", limits);
  live_reap_ok(child);
  live_ok();
}
