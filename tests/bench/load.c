// SPDX-License-Identifier: Apache-2.0
// load READY KIND N: holds N of what the bench measures, and sleeps. KIND: processes, threads, memory (MiB), huge (MiB, in
// transparent huge pages), vmas, workers (N forked ones that share 500 MiB with their parent), connections (TCP, both ends),
// pairs (of Unix sockets), pipes, files. Tasks of 1000 descriptors each hold the latter.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
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

static int connection(int ends[2]) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listener, (void *)&address, size) || listen(listener, 1) || getsockname(listener, (void *)&address, &size)) return -1;
  ends[0] = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(ends[0], (void *)&address, size)) return -1;
  ends[1] = accept(listener, NULL, NULL);
  close(listener);
  return ends[1];
}

static void hold(const char *ready, const char *kind, size_t n) {
  const size_t descriptors = *kind == 'f' ? 1 : 2;
  char name[4096];
  int ends[2];
  for (size_t i = 0; i < n; i++) {
    if (i && i * descriptors % 1000 == 0) {  // a child holds these, and another the next
      if (fork() == 0) sleeper(NULL);
      for (int fd = 3; fd < 1100; fd++) close(fd);
    }
    int failed;
    if (!strcmp(kind, "pipes")) failed = pipe(ends);
    else if (!strcmp(kind, "pairs")) failed = socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    else if (!strcmp(kind, "connections")) failed = connection(ends) < 0;
    else {
      snprintf(name, sizeof name, "%s.%zu", ready, i);
      failed = open(name, O_RDWR | O_CREAT, 0600) < 0;
    }
    if (failed) exit(1);
    if (descriptors == 2 && write(ends[1], "x", 1) != 1) exit(1);
  }
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
  } else if (strchr("cpf", *kind)) {
    hold(argv[1], kind, n);
  } else {
    return 2;
  }
  sleep(1);  // the children are in their sleep
  if (open(argv[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0) return 1;
  sleeper(NULL);
}
