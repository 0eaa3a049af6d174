// SPDX-License-Identifier: Apache-2.0
// The robust futex list: a thread that dies while it holds a robust mutex must leave EOWNERDEAD behind, and a
// joiner must be woken by the kernel's clear_child_tid write; get_robust_list(2), set_tid_address(2).
#include "live.h"
#include <pthread.h>

static pthread_mutex_t mutex;
static volatile int locked;
static void *dies_holding(void *unused) {
  (void)unused;
  CHECK(pthread_mutex_lock(&mutex) == 0);
  locked = 1;
  while (access(live_go_path, F_OK)) live_pause();
  return NULL;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  CHECK(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
  CHECK(pthread_mutex_init(&mutex, &attributes) == 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, dies_holding, NULL) == 0);
  while (!locked) live_pause();
  void *head = NULL, *head_now = NULL;
  size_t size = 0, size_now = 0;
  CHECK(syscall(SYS_get_robust_list, 0, &head, &size) == 0);
  live_ready();
  live_wait();

  CHECK(syscall(SYS_get_robust_list, 0, &head_now, &size_now) == 0 && head == head_now && size == size_now);
  CHECK(pthread_join(thread, NULL) == 0);
  int rc = pthread_mutex_lock(&mutex);
  CHECK(rc == EOWNERDEAD, "locking gave %d: the robust list is lost", rc);
  CHECK(pthread_mutex_consistent(&mutex) == 0 && pthread_mutex_unlock(&mutex) == 0);
  live_ok();
}
