// SPDX-License-Identifier: Apache-2.0
// Pipes: data in flight (a full pipe, several buffers), capacity, O_NONBLOCK, packets, ends in one task,
// in parent and child, dup'ed, and a pipe one of whose ends is closed; pipe(7).
#include "live.h"

static void make(int ends[2], int flags) { CHECK(pipe2(ends, flags) == 0); }

int main(int argc, char **argv) {
  live_init(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  char text[70000];
  int own[2], down[2], up[2], full[2], resized[2], half[2], widowed[2];
  make(own, 0);
  CHECK(write(own[1], "hello", 5) == 5 && write(own[1], ", world", 7) == 7);
  int twin = dup(own[1]);
  make(down, O_CLOEXEC);
  make(up, 0);
  make(full, O_NONBLOCK);
  size_t filled = 0;
  // In whole pages: how a pipe packs smaller writes is its own affair, and may change with the contents rewritten.
  for (ssize_t n; (n = write(full[1], memset(text, 'a' + filled / 4096 % 26, 4096), 4096)) > 0;) filled += n;
  make(resized, 0);
  CHECK(fcntl(resized[1], F_SETPIPE_SZ, 16384) == 16384);
  CHECK(write(resized[1], memset(text, 'r', 9000), 9000) == 9000);
  make(half, 0);
  CHECK(write(half[1], "last words", 10) == 10);
  close(half[1]);
  make(widowed, 0);
  close(widowed[0]);

  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    close(down[1]);
    close(up[0]);
    close(own[0]), close(own[1]), close(twin), close(full[0]), close(full[1]), close(resized[0]), close(resized[1]);
    close(half[0]), close(widowed[1]);
    ssize_t n;
    while ((n = read(down[0], text, 100)) > 0) CHECK(write(up[1], text, n) == n);  // blocked here while dumped
    CHECK(n == 0);
    _exit(0);
  }
  close(down[0]);
  close(up[1]);
  CHECK(write(down[1], "?", 1) == 1 && read(up[0], text, 1) == 1);  // the child has closed what it does not use
  CHECK(write(down[1], "before ", 7) == 7);
  live_ready();
  live_wait();

  CHECK(write(twin, "!", 1) == 1);
  CHECK(read(own[0], text, 100) == 13 && memcmp(text, "hello, world!", 13) == 0, "in flight: %.13s", text);
  close(own[1]);
  close(twin);
  CHECK(read(own[0], text, 100) == 0, "no end of file: somebody else holds a write end");

  CHECK(write(down[1], "after", 5) == 5);
  size_t got = 0;
  while (got < 12) {
    ssize_t n = read(up[0], text + got, 100);
    CHECK(n > 0);
    got += n;
  }
  CHECK(memcmp(text, "before after", 12) == 0, "%.12s", text);
  close(down[1]);
  CHECK(read(up[0], text, 1) == 0);
  live_reap_ok(child);

  CHECK(fcntl(full[0], F_GETFL) & O_NONBLOCK);
  size_t drained = 0;
  for (ssize_t n; (n = read(full[0], text, 1000)) > 0; drained += n)
    for (ssize_t i = 0; i < n; i++) CHECK(text[i] == (char)('a' + (drained + i) / 4096 % 26), "at %zu", drained + i);
  CHECK(drained == filled && errno == EAGAIN, "%zu bytes came back of %zu", drained, filled);

  CHECK(fcntl(resized[0], F_GETPIPE_SZ) == 16384, "capacity %d", fcntl(resized[0], F_GETPIPE_SZ));
  CHECK(read(resized[0], text, sizeof text) == 9000 && text[8999] == 'r');
  CHECK(read(half[0], text, 100) == 10 && memcmp(text, "last words", 10) == 0 && read(half[0], text, 1) == 0);
  CHECK(write(widowed[1], "x", 1) < 0 && errno == EPIPE);
  live_ok();
}
