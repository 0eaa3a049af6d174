// SPDX-License-Identifier: Apache-2.0
// load READY KIND N: holds N of what the bench measures, and sleeps. KIND: processes, threads, memory (MiB), huge (MiB, in
// transparent huge pages), vmas, workers (N forked ones that share 500 MiB with their parent).
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static void *sleeper(void *unused) {
  for (;;) pause();
  return unused;
}

static void fill(char *at, size_t size, unsigned seed) {
  for (size_t i = 0; i < size; i += sizeof(unsigned)) *(unsigned *)(at + i) = seed = seed * 1664525 + 1013904223;
}

static char *allocate(size_t size, int advice) {
  const size_t huge = 2 << 20;
  char *at = mmap(NULL, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) exit(1);
  at = (char *)(((unsigned long)at + huge - 1) & ~(huge - 1));
  madvise(at, size, advice);
  fill(at, size, 1);
  return at;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  const char *kind = argv[2];
  const size_t n = strtoul(argv[3], NULL, 10), mib = 1 << 20;
  if (!strcmp(kind, "processes") || !strcmp(kind, "workers")) {
    if (*kind == 'w') allocate(500 * mib, MADV_NOHUGEPAGE);
    for (size_t i = *kind == 'p'; i < n; i++)
      if (fork() == 0) sleeper(NULL);
  } else if (!strcmp(kind, "threads")) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * 1024);
    pthread_t thread;
    for (size_t i = 1; i < n; i++)
      if (pthread_create(&thread, &attributes, sleeper, NULL)) return 1;
  } else if (!strcmp(kind, "memory")) {
    allocate(n * mib, MADV_NOHUGEPAGE);
  } else if (!strcmp(kind, "huge")) {
    allocate(n * mib, MADV_HUGEPAGE);
  } else if (!strcmp(kind, "vmas")) {
    char *at = mmap(NULL, n * 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < n; i++) {
      if (mprotect(at + i * 8192, 4096, PROT_READ | PROT_WRITE)) return 1;
      at[i * 8192] = 1;
    }
  } else {
    return 2;
  }
  sleep(1);  // the children are in their sleep
  if (open(argv[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0) return 1;
  sleeper(NULL);
}
