// SPDX-License-Identifier: Apache-2.0
// Threads: exact tids, thread-local storage (the fs base), per-thread signal mask, name, alternate stack, a thread
// waiting on a private futex, and pthread_join afterwards (clear_child_tid); pthreads(7).
#include "live.h"
#include <pthread.h>

enum { kThreads = 8 };
static __thread unsigned long local_value;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static int released;

static void *body(void *argument) {
  long index = (long)argument;
  local_value = 0x1234567800ul + index;
  char name[16], now[16];
  snprintf(name, sizeof name, "worker-%ld", index);
  CHECK(prctl(PR_SET_NAME, name) == 0);
  sigset_t mask, was;
  sigemptyset(&mask);
  sigaddset(&mask, SIGRTMIN + index);
  CHECK(pthread_sigmask(SIG_SETMASK, &mask, NULL) == 0);
  stack_t alternate = {.ss_sp = malloc(65536), .ss_size = 65536}, restored;
  if (index % 2) CHECK(sigaltstack(&alternate, NULL) == 0);
  pid_t tid = syscall(SYS_gettid);
  pthread_barrier_wait(&barrier);

  if (index == 1) {  // spins: registers change all the time
    for (volatile unsigned long i = 0; access(live_go_path, F_OK); i++) {}
  } else {
    pthread_mutex_lock(&mutex);
    while (!released) pthread_cond_wait(&condition, &mutex);
    pthread_mutex_unlock(&mutex);
  }

  CHECK(local_value == 0x1234567800ul + index, "thread %ld: local value %#lx", index, local_value);
  CHECK(syscall(SYS_gettid) == tid);
  CHECK(prctl(PR_GET_NAME, now) == 0 && strcmp(now, name) == 0, "name %s", now);
  CHECK(pthread_sigmask(SIG_SETMASK, NULL, &was) == 0);
  for (int s = 1; s < 65; s++) {
    if (s == 32 || s == 33) continue;  // the C library's own
    CHECK(sigismember(&was, s) == (s == SIGRTMIN + index), "thread %ld: mask of signal %d", index, s);
  }
  CHECK(sigaltstack(NULL, &restored) == 0);
  CHECK(index % 2 ? restored.ss_sp == alternate.ss_sp && restored.ss_size == 65536 : restored.ss_flags == SS_DISABLE);
  return (void *)(index * 10);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  pthread_t threads[kThreads];
  CHECK(pthread_barrier_init(&barrier, NULL, kThreads + 1) == 0);
  for (long i = 0; i < kThreads; i++) CHECK(pthread_create(&threads[i], NULL, body, (void *)i) == 0);
  pthread_barrier_wait(&barrier);
  local_value = 99;
  live_ready();
  live_wait();

  CHECK(local_value == 99);
  pthread_mutex_lock(&mutex);
  released = 1;
  pthread_cond_broadcast(&condition);
  pthread_mutex_unlock(&mutex);
  for (long i = 0; i < kThreads; i++) {
    void *result;
    CHECK(pthread_join(threads[i], &result) == 0 && result == (void *)(i * 10), "thread %ld", i);
  }
  pthread_t later;  // threads can still be made
  pthread_barrier_init(&barrier, NULL, 1);
  void *result;
  CHECK(pthread_create(&later, NULL, body, (void *)2) == 0 && pthread_join(later, &result) == 0 && result == (void *)20);
  live_ok();
}
