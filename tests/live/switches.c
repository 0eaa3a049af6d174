// SPDX-License-Identifier: Apache-2.0
// What a task switches for itself and nobody sees: rdtsc and cpuid that trap, machine check policy, speculation
// control, MDWE, merging of equal pages, THP, what a core dump holds, autogroup, the signal that its end sends,
// deadline scheduling, reset on fork, login uid; memory barriers; prctl(2), arch_prctl(2), membarrier(2), proc(5), sched(7). Where this kernel or
// machine has not got it, what is there must stay.
#include "live.h"
#include <linux/membarrier.h>
#include <linux/sched.h>
#include <sys/ptrace.h>

enum { kArchGetCpuid = 0x1011, kArchSetCpuid = 0x1012 };
struct attr {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
};
struct state {
  int tsc, mce, spec[3], mdwe, merge, thp, timer_slack, keepcaps, barriers;
  long cpuid;
  char filter[32], autogroup[16], login[32];
  struct attr attr;
};

static const int kBarriers[] = {MEMBARRIER_CMD_PRIVATE_EXPEDITED, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ};

static void last_word(const char *path, char *into, size_t size) {
  char text[256] = "";
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  text[n > 0 ? n : 0] = 0;
  snprintf(into, size, "%s", strrchr(text, ' ') ? strrchr(text, ' ') + 1 : text);
}
static void collect(struct state *s) {
  memset(s, 0, sizeof *s);
  CHECK(prctl(PR_GET_TSC, &s->tsc) == 0);
  s->mce = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
  for (int i = 0; i < 3; i++) s->spec[i] = prctl(PR_GET_SPECULATION_CTRL, i, 0, 0, 0);
  s->mdwe = prctl(66, 0, 0, 0, 0);
  s->merge = prctl(68, 0, 0, 0, 0);
  s->thp = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
  s->timer_slack = prctl(PR_GET_TIMERSLACK);
  s->keepcaps = prctl(PR_GET_KEEPCAPS);
  s->cpuid = syscall(SYS_arch_prctl, kArchGetCpuid, 0);
  for (int i = 0; i < 3; i++) s->barriers |= (syscall(SYS_membarrier, kBarriers[i], 0, 0) == 0) << i;
  if (syscall(SYS_membarrier, 512 /* GET_REGISTRATIONS, Linux 6.3 */, 0, 0) > 0) s->barriers |= syscall(SYS_membarrier, 512, 0, 0) << 3;
  last_word("/proc/self/coredump_filter", s->filter, sizeof s->filter);
  last_word("/proc/self/autogroup", s->autogroup, sizeof s->autogroup);
  last_word("/proc/self/loginuid", s->login, sizeof s->login);
  CHECK(syscall(SYS_sched_getattr, 0, &s->attr, sizeof s->attr, 0) == 0);
}
static int put(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  int good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
  close(fd);
  return good ? 0 : -1;
}

static void thread_switches(void) {
  CHECK(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0);
  CHECK(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0) == 0);
  prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0);
  prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_FORCE_DISABLE, 0, 0);
  syscall(SYS_arch_prctl, kArchSetCpuid, 0);
  CHECK(prctl(PR_SET_TIMERSLACK, 123456) == 0 && prctl(PR_SET_KEEPCAPS, 1) == 0);
}
static void memory_switches(void) {
  prctl(65, 1, 0, 0, 0);
  CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
  CHECK(put("/proc/self/coredump_filter", "0x77") == 0 || access("/proc/self/coredump_filter", F_OK));
}
static void barriers(void) {
  CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0);
  syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
  syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0);
}
static void merging(void) { prctl(67, 1, 0, 0, 0); }
static void session_switches(void) {
  CHECK(setsid() > 0);
  put("/proc/self/autogroup", "7");
  put("/proc/self/loginuid", "1234");
}
static void deadline(void) {
  struct attr attr = {.size = sizeof attr, .policy = 6, .runtime = 1000000, .deadline = 20000000, .period = 40000000};
  syscall(SYS_sched_setattr, 0, &attr, 0);
}
static void reset_on_fork(void) {
  struct attr attr = {.size = sizeof attr, .policy = SCHED_BATCH, .flags = 1, .nice = 3};
  CHECK(syscall(SYS_sched_setattr, 0, &attr, 0) == 0);
}
static void (*const kSet[])(void) = {thread_switches, memory_switches, barriers, merging, session_switches, deadline, reset_on_fork};
enum { kCount = sizeof kSet / sizeof *kSet };

static pid_t start(struct live_gate gate, int i, int exit_signal) {
  struct clone_args how = {.exit_signal = exit_signal};
  pid_t pid = syscall(SYS_clone3, &how, sizeof how);
  CHECK(pid >= 0);
  if (pid > 0) return pid;
  struct state before, after;
  kSet[i]();
  collect(&before);
  live_gate_pass(gate);
  while (access(live_go_path, F_OK)) live_pause();
  collect(&after);
  CHECK(memcmp(&before.attr, &after.attr, sizeof before.attr) == 0, "%d: policy %u->%u flags %#lx->%#lx runtime %lu->%lu", i, before.attr.policy,
        after.attr.policy, before.attr.flags, after.attr.flags, before.attr.runtime, after.attr.runtime);
  CHECK(before.tsc == after.tsc && before.mce == after.mce && before.cpuid == after.cpuid, "%d: tsc %d->%d mce %d->%d cpuid %ld->%ld", i, before.tsc,
        after.tsc, before.mce, after.mce, before.cpuid, after.cpuid);
  CHECK(memcmp(before.spec, after.spec, sizeof before.spec) == 0, "%d: speculation %d %d %d -> %d %d %d", i, before.spec[0], before.spec[1], before.spec[2],
        after.spec[0], after.spec[1], after.spec[2]);
  CHECK(before.mdwe == after.mdwe && before.merge == after.merge && before.thp == after.thp, "%d: mdwe %d->%d merge %d->%d thp %d->%d", i, before.mdwe,
        after.mdwe, before.merge, after.merge, before.thp, after.thp);
  CHECK(before.barriers == after.barriers, "%d: memory barriers %#x -> %#x", i, before.barriers, after.barriers);
  CHECK(before.timer_slack == after.timer_slack && before.keepcaps == after.keepcaps);
  CHECK(strcmp(before.filter, after.filter) == 0 && strcmp(before.autogroup, after.autogroup) == 0 && strcmp(before.login, after.login) == 0,
        "%d: %s->%s %s->%s %s->%s", i, before.filter, after.filter, before.autogroup, after.autogroup, before.login, after.login);
  _exit(0);
}

static volatile int ended;
static void on_end(int s) { (void)s; ended++; }

int main(int argc, char **argv) {
  live_init(argc, argv);
  struct live_gate gate = live_gate_open();
  pid_t children[kCount];
  signal(SIGUSR2, on_end);
  for (int i = 0; i < kCount; i++) children[i] = start(gate, i, i == 0 ? SIGUSR2 : i == 1 ? 0 : SIGCHLD);
  live_gate_await(gate, kCount);
  live_ready();
  live_wait();
  for (int i = 0; i < kCount; i++) {
    int status = -1;
    pid_t got;
    do got = waitpid(children[i], &status, __WALL);
    while (got < 0 && errno == EINTR);
    CHECK(got == children[i] && status == 0, "child %d: %#x", i, status);
  }
  CHECK(ended == 1, "%d ends were told by SIGUSR2", ended);
  live_ok();
}
