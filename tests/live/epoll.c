// SPDX-License-Identifier: Apache-2.0
// epoll(7): level and edge, one-shot armed and spent, exclusive, nested, entries of closed descriptors with a dup, of
// numbers that are used anew, of files that only a child has open; shared with that child; a thread in epoll_wait(2).
#include "live.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

static void watch(int epoll, int fd, uint32_t events, uint64_t data) {
  struct epoll_event event = {events, {.u64 = data}};
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "fd %d", fd);
}
static void rearm(int epoll, int fd, uint32_t events, uint64_t data) {
  struct epoll_event event = {events, {.u64 = data}};
  CHECK(epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) == 0, "fd %d", fd);
}
static int up(int fd) {
  uint64_t one = 1;
  return write(fd, &one, sizeof one) == sizeof one;
}
static int down(int fd) {
  uint64_t value;
  return read(fd, &value, sizeof value) == sizeof value;
}
// The data of all that is ready, as a set of bits.
static uint64_t ready(int epoll) {
  struct epoll_event events[32];
  int n = epoll_wait(epoll, events, 32, 0);
  CHECK(n >= 0);
  uint64_t bits = 0;
  while (n-- > 0) bits |= events[n].data.u64;
  return bits;
}
static int waited_for;
static void *waits(void *unused) {
  struct epoll_event event;
  CHECK(epoll_wait(waited_for, &event, 1, -1) == 1 && event.data.u64 == 0x123456789abcdef0 && event.events == EPOLLIN);
  return unused;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  enum { LEVEL = 1, EDGE = 2, SPENT = 4, ARMED = 8, EXCLUSIVE = 16, PIPE = 32, NESTED = 64, DUP = 128, OLD = 256, NEW = 512, CHILD = 1024, TIMER = 2048, SILENT = 4096 };
  int epoll = epoll_create1(EPOLL_CLOEXEC), inner = epoll_create1(0), edges = epoll_create1(0);
  waited_for = epoll_create1(0);
  int level = eventfd(0, EFD_NONBLOCK), edge = eventfd(0, EFD_NONBLOCK), spent = eventfd(0, EFD_NONBLOCK), armed = eventfd(0, EFD_NONBLOCK);
  int exclusive = eventfd(0, EFD_NONBLOCK), in_nested = eventfd(0, EFD_NONBLOCK), wakes = eventfd(0, EFD_NONBLOCK);
  int closed = eventfd(0, EFD_NONBLOCK), reused = eventfd(0, EFD_NONBLOCK), childs = eventfd(0, EFD_NONBLOCK);
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), ends[2], silent[2];
  CHECK(pipe2(ends, O_NONBLOCK) == 0 && pipe2(silent, O_NONBLOCK) == 0);
  watch(epoll, level, EPOLLIN, LEVEL);
  watch(epoll, spent, EPOLLIN | EPOLLOUT | EPOLLONESHOT, SPENT);
  CHECK(ready(epoll) == SPENT && ready(epoll) == 0);
  watch(epoll, armed, EPOLLIN | EPOLLONESHOT | EPOLLET, ARMED);
  watch(epoll, exclusive, EPOLLIN | EPOLLEXCLUSIVE, EXCLUSIVE);
  watch(epoll, ends[0], EPOLLIN | EPOLLRDHUP, PIPE);
  watch(inner, in_nested, EPOLLIN, 1);
  watch(epoll, inner, EPOLLIN, NESTED);
  watch(epoll, timer, EPOLLIN, TIMER);
  watch(epoll, childs, EPOLLIN, CHILD);
  watch(epoll, closed, EPOLLIN, DUP);
  int twin = dup(closed);
  close(closed);
  watch(epoll, reused, EPOLLIN, OLD);
  int moved = dup(reused), fresh = eventfd(0, EFD_NONBLOCK);
  CHECK(dup2(fresh, reused) == reused);
  close(fresh);
  watch(epoll, reused, EPOLLIN, NEW);  // the same number once more, another file
  watch(waited_for, wakes, EPOLLIN, 0x123456789abcdef0);
  watch(edges, edge, EPOLLIN | EPOLLET, EDGE);
  watch(edges, silent[1], EPOLLOUT | EPOLLET, SILENT);
  CHECK(up(edge) && ready(edges) == (EDGE | SILENT) && ready(edges) == 0);  // reported, but not read

  struct live_gate gate = live_gate_open();
  int asked[2];
  CHECK(pipe(asked) == 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    char what;
    close(asked[1]);
    live_gate_pass(gate);
    CHECK(read(asked[0], &what, 1) == 1 && up(childs));
    CHECK(read(asked[0], &what, 1) == 1 && down(childs));
    CHECK(up(level) && ready(epoll) == LEVEL && down(level));  // the one epoll
    _exit(0);
  }
  close(childs);
  close(asked[0]);
  live_gate_await(gate, 1);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, waits, NULL) == 0);
  for (int i = 0; i < 3; i++) live_pause();
  live_ready();
  live_wait();

  CHECK(fcntl(epoll, F_GETFD) == FD_CLOEXEC && fcntl(inner, F_GETFD) == 0);
  CHECK(ready(epoll) == 0, "%lx", (unsigned long)ready(epoll));
  CHECK(up(level) && ready(epoll) == LEVEL && ready(epoll) == LEVEL && down(level) && ready(epoll) == 0);
  CHECK(up(spent) && ready(epoll) == 0, "what was spent is armed again");
  rearm(epoll, spent, EPOLLIN | EPOLLONESHOT, SPENT);
  CHECK(ready(epoll) == SPENT && ready(epoll) == 0 && down(spent));
  CHECK(up(armed) && ready(epoll) == ARMED && up(armed) && ready(epoll) == 0 && down(armed));
  CHECK(up(exclusive) && ready(epoll) == EXCLUSIVE && down(exclusive));
  CHECK(write(ends[1], "x", 1) == 1 && ready(epoll) == PIPE);
  char byte;
  CHECK(read(ends[0], &byte, 1) == 1 && ready(epoll) == 0);
  CHECK(up(in_nested) && ready(epoll) == NESTED && ready(inner) == 1 && down(in_nested) && ready(epoll) == 0);
  CHECK(up(twin) && ready(epoll) == DUP && down(twin) && ready(epoll) == 0);
  CHECK(up(moved) && ready(epoll) == OLD && down(moved));
  CHECK(up(reused) && ready(epoll) == NEW && down(reused));
  struct itimerspec soon = {{0, 0}, {0, 1}};
  CHECK(timerfd_settime(timer, 0, &soon, NULL) == 0 && poll(&(struct pollfd){timer, POLLIN, 0}, 1, -1) == 1);
  CHECK(ready(epoll) == TIMER && down(timer));

  const uint64_t again = ready(edges);
  // Where fdinfo does not tell semaphores (before Linux 6.5) an eventfd is read and written to find out, which is an edge.
  char path[64], info[1024];
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", edge);
  CHECK(again == 0 || !strstr(live_read_file(path, info, sizeof info), "eventfd-semaphore"), "edges that were reported before are reported again: %lx", (unsigned long)again);
  CHECK(up(edge) && ready(edges) == EDGE && ready(edges) == 0 && down(edge));
  CHECK(up(wakes) && pthread_join(thread, NULL) == 0);
  CHECK(write(asked[1], "a", 1) == 1);
  while (ready(epoll) != CHILD) live_pause();
  CHECK(write(asked[1], "b", 1) == 1);
  live_reap_ok(child);
  CHECK(ready(epoll) == 0);
  live_ok();
}
