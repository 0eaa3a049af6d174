// SPDX-License-Identifier: Apache-2.0
// Calls with a relative time limit end when they would have ended, however much of it was over; also those that were
// interrupted before (by SIGSTOP), whose number is hidden behind restart_syscall(2). Most of the limit is over before
// the checkpoint; how long a call lasts after that is counted in naps of the main thread, which stand still with it.
#include "live.h"
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sys/select.h>

enum { kSeconds = 4, kBefore = 3, kFar = 9000 };
static const struct timespec kLimit = {kSeconds, 0};
static struct timespec started;
static volatile long naps;
static int pipe_ends[2];

static double elapsed(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (now.tv_sec - started.tv_sec) + (now.tv_nsec - started.tv_nsec) / 1e9;
}

// Bare system calls: the C library works with copies.
static long in_nanosleep(void) { return syscall(SYS_nanosleep, &kLimit, NULL); }
static long in_nanosleep_rest(void) {
  struct timespec rest = {77, 0};
  return syscall(SYS_nanosleep, &kLimit, &rest);
}
static long in_sleep(void) {
  struct timespec both = kLimit;
  return syscall(SYS_nanosleep, &both, &both);
}
static long in_monotonic(void) { return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &kLimit, NULL); }
static long in_realtime(void) { return syscall(SYS_clock_nanosleep, CLOCK_REALTIME, 0, &kLimit, NULL); }
static long in_boottime(void) { return syscall(SYS_clock_nanosleep, CLOCK_BOOTTIME, 0, &kLimit, NULL); }
static long in_poll(void) { return syscall(SYS_poll, NULL, 0, kSeconds * 1000); }
static long in_poll_pipe(void) {
  struct pollfd wait = {pipe_ends[0], POLLIN, 0};
  return syscall(SYS_poll, &wait, 1, kSeconds * 1000);
}
static long in_ppoll(void) {
  struct timespec limit = kLimit;
  return syscall(SYS_ppoll, NULL, 0, &limit, NULL, 0);
}
static long in_select(void) {
  struct timeval limit = {kSeconds, 0};
  return syscall(SYS_select, 0, NULL, NULL, NULL, &limit);
}
static long in_futex(void) {
  int word = 1;
  long result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, &kLimit, NULL, 0);
  return result < 0 && errno == ETIMEDOUT ? 0 : 1;
}
static long in_futex_until(void) {
  int word = 1;
  struct timespec end = {started.tv_sec + kSeconds + 1, 0};
  long result = syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 1, &end, NULL, ~0);
  return result < 0 && errno == ETIMEDOUT ? 0 : 1;
}
static void handler(int s) { (void)s; }
static long in_long_sleep(void) {
  struct timespec limit = {kFar, 0}, rest = {0, 0};
  signal(SIGUSR1, handler);
  CHECK(syscall(SYS_nanosleep, &limit, &rest) < 0 && errno == EINTR && rest.tv_sec <= kFar - kBefore,
        "%ld of %d s left", rest.tv_sec, kFar);
  return 0;
}

static long (*const kCalls[])(void) = {in_nanosleep, in_nanosleep_rest, in_sleep,  in_monotonic,   in_realtime,   in_boottime, in_poll,
                                       in_poll_pipe, in_ppoll,          in_select, in_futex,       in_futex_until, in_long_sleep};
enum { kCount = sizeof kCalls / sizeof *kCalls };
static pid_t tids[2 * kCount];
static int done[2 * kCount];

static void make_call(long index) {
  const long call = index % kCount;
  __atomic_store_n(&tids[index], syscall(SYS_gettid), __ATOMIC_SEQ_CST);
  long result = kCalls[call]();
  CHECK(result == 0, "call %ld returned %ld", call, result);
  if (kCalls[call] == in_long_sleep) return;
  CHECK(elapsed() >= kSeconds - 0.02, "call %ld returned after %.2f s of %d", call, elapsed(), kSeconds);
  CHECK(naps < 100 * (kSeconds - kBefore) * 2, "call %ld began anew: %ld naps", call, naps);
}

// Stays when it is done: on a slow machine some are before the runner has compared the threads.
static void *sleeper(void *argument) {
  make_call((long)argument);
  __atomic_store_n(&done[(long)argument], 1, __ATOMIC_SEQ_CST);
  for (;;) pause();
  return NULL;
}

static void start(pthread_t *threads, int first) {
  for (long i = first; i < first + kCount; i++) CHECK(pthread_create(&threads[i], NULL, sleeper, (void *)i) == 0);
  for (int i = first; i < first + kCount; i++) {
    char path[64], text[1024];
    while (!__atomic_load_n(&tids[i], __ATOMIC_SEQ_CST)) live_pause();
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tids[i]);
    while (strrchr(live_read_file(path, text, sizeof text), ')')[2] != 'S') live_pause();
  }
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  CHECK(pipe2(pipe_ends, O_CLOEXEC) == 0);
  clock_gettime(CLOCK_MONOTONIC, &started);
  pthread_t threads[2 * kCount];
  start(threads, 0);
  pid_t self = getpid(), helper = fork();
  if (helper == 0) {
    kill(self, SIGSTOP);
    for (int i = 0; i < 5; i++) live_pause();
    kill(self, SIGCONT);
    _exit(0);
  }
  live_reap_ok(helper);
  start(threads, kCount);
  while (elapsed() < kBefore) live_pause();
  live_ready();
  while (access(live_go_path, F_OK)) live_pause(), naps++;

  for (int i = 0; i < 2 * kCount; i++)
    if (kCalls[i % kCount] == in_long_sleep) CHECK(syscall(SYS_tgkill, self, tids[i], SIGUSR1) == 0);
  for (int i = 0; i < 2 * kCount; i++)
    while (!__atomic_load_n(&done[i], __ATOMIC_SEQ_CST)) live_pause(), naps++;
  live_ok();
}
