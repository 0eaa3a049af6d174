// SPDX-License-Identifier: Apache-2.0
// eventfd(2): counters (none, some, the greatest), EFD_SEMAPHORE, O_NONBLOCK, dup, one shared with a child that is
// blocked in read(2).
#include "live.h"
#include <sys/eventfd.h>

static uint64_t take(int fd) {
  uint64_t value = 0;
  ssize_t n = read(fd, &value, sizeof value);
  CHECK(n == 8 || (n < 0 && errno == EAGAIN));
  return n == 8 ? value : 0;
}
static void give(int fd, uint64_t value) { CHECK(write(fd, &value, sizeof value) == 8); }

int main(int argc, char **argv) {
  live_init(argc, argv);
  int some = eventfd(41, EFD_NONBLOCK), none = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), full = eventfd(0, EFD_NONBLOCK);
  int semaphore = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK), empty = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK);
  int one = eventfd(1, EFD_SEMAPHORE | EFD_NONBLOCK), asked = eventfd(0, 0), answered = eventfd(0, 0);
  CHECK(some >= 0 && none >= 0 && full >= 0 && semaphore >= 0 && empty >= 0 && one >= 0 && asked >= 0 && answered >= 0);
  int twin = dup(some);
  give(full, UINT64_MAX - 1);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    give(answered, 1);
    for (uint64_t got; (got = take(asked)) != 99;) give(answered, got + 1);  // blocked here while dumped
    give(semaphore, 2);
    _exit(0);
  }
  CHECK(take(answered) == 1);
  live_ready();
  live_wait();

  CHECK(take(twin) == 41 && take(some) == 0 && take(none) == 0);
  uint64_t more = 1;
  CHECK(write(full, &more, sizeof more) < 0 && errno == EAGAIN && take(full) == UINT64_MAX - 1);
  CHECK(fcntl(none, F_GETFD) == FD_CLOEXEC && fcntl(some, F_GETFD) == 0);
  CHECK(!(fcntl(asked, F_GETFL) & O_NONBLOCK) && fcntl(some, F_GETFL) & O_NONBLOCK);
  give(asked, 7);
  CHECK(take(answered) == 8);
  CHECK(take(one) == 1 && take(one) == 0);
  give(one, 2), give(empty, 2);
  CHECK(take(one) == 1 && take(one) == 1 && take(one) == 0, "not a semaphore any more");
  CHECK(take(empty) == 1 && take(empty) == 1 && take(empty) == 0, "not a semaphore any more");
  CHECK(take(semaphore) == 1);
  give(asked, 99);
  live_reap_ok(child);
  for (int i = 0; i < 4; i++) CHECK(take(semaphore) == 1, "%d", i);
  CHECK(take(semaphore) == 0);
  give(none, 5), give(none, 6);
  CHECK(take(none) == 11);
  live_ok();
}
