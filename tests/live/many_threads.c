// SPDX-License-Identifier: Apache-2.0
// A thousand threads, each with a name, a signal mask and an alternate stack of its own; pthreads(7).
#include "live.h"
#include <pthread.h>

enum { kThreads = 1000, kStack = 16384, kAlternate = 8192 };
static pthread_barrier_t barrier;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int released;
static __thread long own;
static char alternates[kThreads][kAlternate];

static void want_mask(long index, uint64_t *mask) {  // real-time signals, by the bits of the number
  *mask = (uint64_t)index << (40 - 1);
}

static void *body(void *argument) {
  const long index = (long)argument;
  char name[16], now[16];
  uint64_t mask, was;
  snprintf(name, sizeof name, "t-%ld", index);
  want_mask(index, &mask);
  own = index;
  stack_t alternate = {.ss_sp = alternates[index], .ss_size = kAlternate}, restored;
  CHECK(prctl(PR_SET_NAME, name) == 0 && sigaltstack(&alternate, NULL) == 0);
  CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8) == 0);
  const pid_t tid = syscall(SYS_gettid);
  pthread_barrier_wait(&barrier);
  pthread_mutex_lock(&mutex);
  while (!released) pthread_cond_wait(&condition, &mutex);
  pthread_mutex_unlock(&mutex);

  CHECK(own == index && syscall(SYS_gettid) == tid, "thread %ld is %ld", index, own);
  CHECK(prctl(PR_GET_NAME, now) == 0 && strcmp(now, name) == 0, "thread %ld is called %s", index, now);
  CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &was, 8) == 0 && was == mask, "thread %ld: mask %#lx", index, was);
  CHECK(sigaltstack(NULL, &restored) == 0 && restored.ss_sp == alternates[index] && restored.ss_size == kAlternate);
  return argument;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  static pthread_t threads[kThreads];
  pthread_attr_t attributes;
  CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, kStack + PTHREAD_STACK_MIN) == 0);
  CHECK(pthread_barrier_init(&barrier, NULL, kThreads + 1) == 0);
  for (long i = 0; i < kThreads; i++) CHECK(pthread_create(&threads[i], &attributes, body, (void *)i) == 0, "thread %ld", i);
  pthread_barrier_wait(&barrier);
  live_ready();
  live_wait();

  pthread_mutex_lock(&mutex);
  released = 1;
  pthread_cond_broadcast(&condition);
  pthread_mutex_unlock(&mutex);
  for (long i = 0; i < kThreads; i++) {
    void *result;
    CHECK(pthread_join(threads[i], &result) == 0 && result == (void *)i, "thread %ld", i);
  }
  live_ok();
}
