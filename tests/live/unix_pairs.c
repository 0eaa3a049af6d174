// SPDX-License-Identifier: Apache-2.0
// socketpair(2) of every type: data and messages in both directions, empty messages, ends in one task, in parent and
// child, dup'ed, closed, shut down, full queues, options; unix(7).
#include "live.h"
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <poll.h>

static char text[1 << 20];

static void pair(int type, int ends[2]) { CHECK(socketpair(AF_UNIX, type, 0, ends) == 0); }
static void put(int fd, const char *bytes) { CHECK(send(fd, bytes, strlen(bytes), 0) == (ssize_t)strlen(bytes)); }
static void expect(int fd, const char *bytes) {
  memset(text, 0, 200);
  ssize_t n = recv(fd, text, 200, MSG_DONTWAIT), wanted = strlen(bytes);
  CHECK(n == wanted && memcmp(text, bytes, n) == 0, "%zd bytes, \"%s\" instead of \"%s\"", n, text, bytes);
}
static void expect_nothing(int fd) { CHECK(recv(fd, text, 200, MSG_DONTWAIT) == -1 && errno == EAGAIN); }
static int option(int fd, int name) {
  int value = -77;
  socklen_t size = sizeof value;
  CHECK(getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0, "option %d", name);
  return value;
}
static void set(int fd, int name, int value) { CHECK(setsockopt(fd, SOL_SOCKET, name, &value, sizeof value) == 0, "option %d", name); }

int main(int argc, char **argv) {
  live_init(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  int stream[2], dgram[2], seq[2], down[2], widow[2], reset[2], half[2], full[2], tuned[2], lone[2], ended[2], peeked[2];
  pair(SOCK_STREAM, stream);
  put(stream[0], "to the "), put(stream[0], "right"), put(stream[1], "to the left");
  CHECK(recv(stream[1], text, 3, 0) == 3);
  int twin = dup(stream[1]);
  pair(SOCK_DGRAM, dgram);
  put(dgram[0], "one"), put(dgram[0], ""), put(dgram[0], "three"), put(dgram[0], ""), put(dgram[0], ""), put(dgram[1], "back");
  pair(SOCK_SEQPACKET | SOCK_NONBLOCK, seq);
  put(seq[0], ""), put(seq[0], "two"), put(seq[0], ""), put(seq[0], memset(text, 'q', 99999)), put(seq[1], "x");
  memset(text, 0, 100000);
  pair(SOCK_STREAM | SOCK_CLOEXEC, down);
  pair(SOCK_STREAM, widow);
  put(widow[1], "last words");
  close(widow[1]);
  pair(SOCK_STREAM, reset);
  put(reset[0], "unread");
  close(reset[1]);
  pair(SOCK_STREAM, half);
  put(half[1], "before the end");
  CHECK(shutdown(half[1], SHUT_WR) == 0);
  pair(SOCK_SEQPACKET, ended);
  put(ended[1], "");
  put(ended[1], "e");
  CHECK(shutdown(ended[0], SHUT_RD) == 0);
  pair(SOCK_STREAM | SOCK_NONBLOCK, full);
  size_t filled = 0;
  for (ssize_t n; (n = send(full[0], memset(text, 'a' + filled / 1000 % 26, 1000), 1000, 0)) > 0;) filled += n;
  pair(SOCK_DGRAM, tuned);
  set(tuned[0], SO_SNDBUF, 20000), set(tuned[0], SO_RCVBUF, 30000), set(tuned[0], SO_PASSCRED, 1);
  set(tuned[0], SO_REUSEADDR, 1), set(tuned[0], SO_PRIORITY, 4), set(tuned[0], SO_TIMESTAMP, 1);
  struct timeval timeout = {3, 500000};
  CHECK(setsockopt(tuned[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0);
  struct linger slow = {1, 7};
  CHECK(setsockopt(tuned[0], SOL_SOCKET, SO_LINGER, &slow, sizeof slow) == 0);
  int sndbuf = option(tuned[0], SO_SNDBUF), rcvbuf = option(tuned[0], SO_RCVBUF);
  pair(SOCK_DGRAM, lone);
  put(lone[1], "orphan");
  close(lone[1]);
  pair(SOCK_STREAM, peeked);
  put(peeked[1], "0123456789");
  set(peeked[0], SO_PEEK_OFF, 3);
  int plain = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(plain >= 0);

  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    close(down[0]);
    close(stream[0]), close(stream[1]), close(twin), close(full[0]), close(half[0]), close(half[1]), close(seq[0]), close(seq[1]);
    ssize_t n;
    while ((n = recv(down[1], text, 100, 0)) > 0) CHECK(send(down[1], text, n, 0) == n);  // blocked here while dumped
    CHECK(n == 0);
    _exit(0);
  }
  close(down[1]);
  put(down[0], "?");
  CHECK(recv(down[0], text, 1, 0) == 1);
  put(down[0], "before ");
  live_ready();
  live_wait();

  expect(stream[0], "to the left");
  put(stream[0], "!");
  expect(twin, "the right!");
  expect_nothing(stream[1]);
  close(stream[1]), close(twin);
  CHECK(recv(stream[0], text, 1, 0) == 0, "no end of file: somebody else has the other end");
  expect(dgram[1], "one"), expect(dgram[1], ""), expect(dgram[1], "three"), expect(dgram[1], ""), expect(dgram[1], "");
  expect_nothing(dgram[1]);
  expect(dgram[0], "back"), expect_nothing(dgram[0]);
  put(dgram[1], "again"), expect(dgram[0], "again");
  CHECK(fcntl(seq[0], F_GETFL) & O_NONBLOCK);
  expect(seq[1], ""), expect(seq[1], "two"), expect(seq[1], "");
  CHECK(recv(seq[1], text, sizeof text, 0) == 99999 && text[0] == 'q' && text[99998] == 'q');
  expect_nothing(seq[1]);
  expect(seq[0], "x");
  expect(widow[0], "last words");
  CHECK(recv(widow[0], text, 1, 0) == 0 && send(widow[0], "x", 1, 0) == -1 && errno == EPIPE);
  CHECK(option(reset[0], SO_ERROR) == ECONNRESET && option(reset[0], SO_ERROR) == 0);
  CHECK(recv(reset[0], text, 1, 0) == 0);
  expect(half[0], "before the end");
  CHECK(recv(half[0], text, 1, 0) == 0 && send(half[1], "x", 1, 0) == -1 && errno == EPIPE);
  put(half[0], "other way"), expect(half[1], "other way");
  expect(ended[0], ""), expect(ended[0], "e");
  CHECK(recv(ended[0], text, 1, 0) == 0 && send(ended[1], "x", 1, 0) == -1 && errno == EPIPE);
  put(ended[0], "w"), expect(ended[1], "w");
  size_t got = 0;
  for (ssize_t n; (n = recv(full[1], text, 1000, 0)) > 0; got += n)
    for (ssize_t i = 0; i < n; i++) CHECK(text[i] == (char)('a' + (got + i) / 1000 % 26), "at %zu", got + i);
  CHECK(got == filled && errno == EAGAIN, "%zu bytes came back of %zu", got, filled);
  CHECK(option(tuned[0], SO_SNDBUF) == sndbuf && option(tuned[0], SO_RCVBUF) == rcvbuf);
  CHECK(option(tuned[0], SO_PASSCRED) == 1 && option(tuned[0], SO_REUSEADDR) == 1 && option(tuned[0], SO_PRIORITY) == 4);
  CHECK(option(tuned[0], SO_TIMESTAMP) == 1 && option(tuned[1], SO_TIMESTAMP) == 0 && option(tuned[1], SO_PASSCRED) == 0);
  socklen_t size = sizeof timeout;
  CHECK(getsockopt(tuned[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, &size) == 0 && timeout.tv_sec == 3 && timeout.tv_usec == 500000);
  size = sizeof slow;
  CHECK(getsockopt(tuned[0], SOL_SOCKET, SO_LINGER, &slow, &size) == 0 && slow.l_onoff == 1 && slow.l_linger == 7);
  expect(lone[0], "orphan");
  CHECK(send(lone[0], "x", 1, 0) == -1 && errno == ECONNREFUSED);
  CHECK(option(peeked[0], SO_PEEK_OFF) == 3);
  CHECK(recv(peeked[0], text, 4, MSG_PEEK) == 4 && memcmp(text, "3456", 4) == 0, "%.4s", text);
  expect(peeked[0], "0123456789");
  CHECK(send(plain, "x", 1, 0) == -1 && errno == ENOTCONN);
  put(down[0], "after");
  got = 0;
  while (got < 12) {
    ssize_t n = recv(down[0], text + got, 100, 0);
    CHECK(n > 0);
    got += n;
  }
  CHECK(memcmp(text, "before after", 12) == 0, "%.12s", text);
  close(down[0]);
  live_reap_ok(child);
  live_ok();
}
