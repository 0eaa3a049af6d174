// SPDX-License-Identifier: Apache-2.0
// The C library's restartable-sequences area must still be registered, where it was, and the kernel keep the
// processor number in it up to date, in every thread; rseq(2).
#include "live.h"
#include <pthread.h>
#include <sys/rseq.h>

static struct rseq *area(void) { return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset); }

static void check(const char *who) {
  // Registered: a second registration of the same area is EBUSY, of another EINVAL, and it moves with us.
  errno = 0;
  long rc = syscall(SYS_rseq, area(), 32, 0, RSEQ_SIG);
  CHECK(rc < 0 && errno == EBUSY, "%s: registering again gave %ld", who, rc);
  cpu_set_t all;
  CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &all)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    unsigned now = __atomic_load_n(&area()->cpu_id, __ATOMIC_RELAXED);
    CHECK(now == (unsigned)cpu, "%s: on processor %d the area says %u", who, cpu, now);
  }
  CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
}

static volatile int waiting;
static void *body(void *unused) {
  (void)unused;
  check("thread before");
  waiting = 1;
  while (access(live_go_path, F_OK)) live_pause();
  check("thread after");
  return NULL;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  if (__rseq_size == 0) {  // no rseq in this kernel: nothing to keep
    live_ready();
    live_wait();
    live_ok();
  }
  check("before");
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, body, NULL) == 0);
  while (!waiting) live_pause();
  live_ready();
  live_wait();
  check("after");
  CHECK(pthread_join(thread, NULL) == 0);
  live_ok();
}
