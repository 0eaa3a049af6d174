// SPDX-License-Identifier: Apache-2.0
// Scheduling policy, nice value and real-time priority of several tasks; sched(7).
#include "live.h"
#include <sys/resource.h>

struct want { int policy, priority, nice; };
static const struct want kTasks[] = {{SCHED_OTHER, 0, 7}, {SCHED_BATCH, 0, 3}, {SCHED_IDLE, 0, 0}, {SCHED_FIFO, 5, 0}, {SCHED_RR, 9, 0}};
enum { kCount = sizeof kTasks / sizeof *kTasks };

int main(int argc, char **argv) {
  live_init(argc, argv);
  struct live_gate gate = live_gate_open();
  pid_t children[kCount];
  for (int i = 0; i < kCount; i++) {
    children[i] = fork();
    CHECK(children[i] >= 0);
    if (children[i] == 0) {
      const struct want *want = &kTasks[i];
      struct sched_param parameter = {want->priority}, now;
      // Real-time policies may be forbidden to us; then what is set is what must stay.
      int set = sched_setscheduler(0, want->policy, &parameter) == 0;
      int policy = set ? want->policy : sched_getscheduler(0), priority = set ? want->priority : 0;
      CHECK(setpriority(PRIO_PROCESS, 0, want->nice) == 0);
      live_gate_pass(gate);
      live_wait();
      CHECK(sched_getscheduler(0) == policy, "policy %d->%d", policy, sched_getscheduler(0));
      CHECK(sched_getparam(0, &now) == 0 && now.sched_priority == priority);
      errno = 0;
      CHECK(getpriority(PRIO_PROCESS, 0) == want->nice && errno == 0, "nice %d->%d", want->nice, getpriority(PRIO_PROCESS, 0));
      _exit(0);
    }
  }
  live_gate_await(gate, kCount);
  live_ready();
  live_wait();
  for (int i = 0; i < kCount; i++) live_reap_ok(children[i]);
  live_ok();
}
