// SPDX-License-Identifier: Apache-2.0
// Named unix sockets: absolute, relative, deleted, replaced, abstract names; listening with connections that wait,
// accepted connections, a datagram server and its clients, senders' names; unix(7).
#include "live.h"
#include <sys/socket.h>
#include <sys/un.h>

static char text[4096];
static struct sockaddr_un address;
static socklen_t length;

static void name(const char *path) {  // '@': abstract
  address = (struct sockaddr_un){.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  CHECK(strlen(path) < sizeof address.sun_path, "%s is too long", path);
  length = sizeof(sa_family_t) + strlen(path) + (path[0] != '@');
  if (path[0] == '@') address.sun_path[0] = 0;
}
static int bound(int type, const char *path) {
  int fd = socket(AF_UNIX, type, 0);
  name(path);
  CHECK(fd >= 0);
  if (path[0] != '@') unlink(path);
  CHECK(bind(fd, (void *)&address, length) == 0, "%s", path);
  return fd;
}
static int listening(int type, const char *path, int backlog) {
  int fd = bound(type, path);
  CHECK(listen(fd, backlog) == 0);
  return fd;
}
static int connected(int type, const char *path) {
  int fd = socket(AF_UNIX, type, 0);
  name(path);
  CHECK(fd >= 0 && connect(fd, (void *)&address, length) == 0, "%s", path);
  return fd;
}
static int accepted(int listener) {
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
  CHECK(fd >= 0);
  return fd;
}
static void put(int fd, const char *bytes) { CHECK(send(fd, bytes, strlen(bytes), 0) == (ssize_t)strlen(bytes)); }
static void expect(int fd, const char *bytes) {
  memset(text, 0, 200);
  ssize_t n = recv(fd, text, 200, MSG_DONTWAIT), wanted = strlen(bytes);
  CHECK(n == wanted && memcmp(text, bytes, n) == 0, "%zd bytes, \"%s\" instead of \"%s\"", n, text, bytes);
}
static void check_name(int fd, int (*get)(int, struct sockaddr *, socklen_t *), const char *path) {
  struct sockaddr_un got = {};
  socklen_t size = sizeof got;
  name(path);
  CHECK(get(fd, (void *)&got, &size) == 0);
  if (!path[0]) length = sizeof(sa_family_t);
  CHECK(size == length && memcmp(got.sun_path, address.sun_path, size - sizeof(sa_family_t)) == 0, "%d bytes \"%s\" instead of \"%s\"",
        (int)size, got.sun_path[0] ? got.sun_path : got.sun_path + 1, path);
}
static int get_name(int fd, struct sockaddr *to, socklen_t *size) { return getsockname(fd, to, size); }
static int get_peer(int fd, struct sockaddr *to, socklen_t *size) { return getpeername(fd, to, size); }
static void expect_from(int fd, const char *bytes, const char *path) {
  struct sockaddr_un got = {};
  socklen_t size = sizeof got;
  memset(text, 0, 200);
  ssize_t n = recvfrom(fd, text, 200, MSG_DONTWAIT, (void *)&got, &size);
  CHECK(n == (ssize_t)strlen(bytes) && memcmp(text, bytes, n) == 0, "%zd bytes \"%s\" instead of \"%s\"", n, text, bytes);
  name(path);
  if (!path[0]) length = 0;
  CHECK(size == length && (!size || memcmp(&got, &address, size) == 0), "\"%s\" is from \"%s\"", bytes, got.sun_path);
}
static void echo(int a, int b) {
  put(a, "ping"), expect(b, "ping"), put(b, "pong"), expect(a, "pong");
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  char *server_path = live_path("server"), *deleted_path = live_path("deleted"), *log_path = live_path("log"), *sender_path = live_path("sender");
  char abstract[64], abstract_seq[64], start[4096];
  snprintf(abstract, sizeof abstract, "@stasis-live-%d", getpid());
  snprintf(abstract_seq, sizeof abstract_seq, "@stasis-live-seq-%d", getpid());
  CHECK(getcwd(start, sizeof start));

  int server = listening(SOCK_STREAM, server_path, 3);
  CHECK(chmod(server_path, 0641) == 0);
  struct timespec times[2] = {{1000000000, 0}, {1234567890, 123456789}};
  CHECK(utimensat(AT_FDCWD, server_path, times, 0) == 0);
  int client = connected(SOCK_STREAM, server_path), peer = accepted(server);
  put(client, "request"), put(peer, "answer");
  int client2 = connected(SOCK_STREAM, server_path), peer2 = accepted(server);
  int gone = connected(SOCK_STREAM, server_path), gone_peer = accepted(server);
  put(gone_peer, "bye");
  close(gone_peer);
  int waits1 = connected(SOCK_STREAM, server_path), waits2 = connected(SOCK_STREAM, server_path);

  int old = listening(SOCK_STREAM, deleted_path, 1);
  int old_client = connected(SOCK_STREAM, deleted_path), old_peer = accepted(old);
  int young = listening(SOCK_STREAM, deleted_path, 1);  // its path now

  int seq = listening(SOCK_SEQPACKET, abstract_seq, 5);
  int seq_client = connected(SOCK_SEQPACKET, abstract_seq), seq_peer = accepted(seq);
  put(seq_client, "one"), put(seq_client, "two");
  int lost = listening(SOCK_STREAM, abstract, 5);  // does not listen any more
  int lost_client = connected(SOCK_STREAM, abstract), lost_peer = accepted(lost);
  close(lost);
  int quiet = bound(SOCK_STREAM, live_path("quiet"));

  CHECK(chdir(strcpy(text, live_path("."))) == 0);
  int relative = bound(SOCK_DGRAM, "relative");
  CHECK(chdir(start) == 0);

  int log = bound(SOCK_DGRAM, log_path), logger1 = connected(SOCK_DGRAM, log_path), logger2 = connected(SOCK_DGRAM, log_path);
  int sender = bound(SOCK_DGRAM, sender_path);
  name(log_path);
  CHECK(connect(sender, (void *)&address, length) == 0);
  put(logger1, "first"), put(sender, "second"), put(logger2, "third");
  char gone_name[64];
  snprintf(gone_name, sizeof gone_name, "@stasis-live-gone-%d", getpid());
  int gone_sender = bound(SOCK_DGRAM, gone_name);
  name(log_path);
  CHECK(sendto(gone_sender, "fourth", 6, 0, (void *)&address, length) == 6);
  close(gone_sender);
  live_ready();
  live_wait();

  struct stat st;
  CHECK(lstat(server_path, &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 07777) == 0641, "mode %o", st.st_mode);
  CHECK(st.st_mtim.tv_sec == 1234567890 && st.st_mtim.tv_nsec == 123456789, "mtime %ld", st.st_mtim.tv_sec);
  expect(peer, "request"), expect(client, "answer"), echo(client, peer), echo(client2, peer2);
  check_name(peer, get_name, server_path), check_name(client, get_peer, server_path), check_name(client, get_name, "");
  expect(gone, "bye");
  CHECK(recv(gone, text, 1, 0) == 0);
  check_name(gone, get_peer, server_path);
  put(waits1, "1");
  int late1 = accepted(server), late2 = accepted(server);
  expect(late1, "1"), echo(waits2, late2);
  for (int i = 0; i <= 3; i++) CHECK(fcntl(connected(SOCK_STREAM, server_path), F_GETFD) >= 0);
  int over = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
  name(server_path);
  CHECK(connect(over, (void *)&address, length) == -1 && errno == EAGAIN, "the backlog is longer than it was");

  check_name(old, get_name, deleted_path), check_name(old_peer, get_name, deleted_path), echo(old_client, old_peer);
  int fresh = connected(SOCK_STREAM, deleted_path);
  echo(fresh, accepted(young));

  expect(seq_peer, "one"), expect(seq_peer, "two"), echo(seq_client, seq_peer);
  check_name(seq_peer, get_name, abstract_seq);
  seq_client = connected(SOCK_SEQPACKET, abstract_seq);
  echo(seq_client, accepted(seq));
  check_name(lost_peer, get_name, abstract), check_name(lost_client, get_peer, abstract), echo(lost_client, lost_peer);
  name(abstract);
  CHECK(connect(over, (void *)&address, length) == -1 && errno == ECONNREFUSED);
  check_name(quiet, get_name, live_path("quiet"));
  CHECK(listen(quiet, 1) == 0);
  int to_quiet = connected(SOCK_STREAM, live_path("quiet"));
  echo(to_quiet, accepted(quiet));

  check_name(relative, get_name, "relative");
  put(connected(SOCK_DGRAM, live_path("relative")), "by path"), expect(relative, "by path");

  expect_from(log, "first", ""), expect_from(log, "second", sender_path), expect_from(log, "third", ""), expect_from(log, "fourth", gone_name);
  CHECK(recv(log, text, 1, MSG_DONTWAIT) == -1);
  put(logger2, "more"), put(sender, "again"), put(connected(SOCK_DGRAM, log_path), "new");
  expect(log, "more"), expect_from(log, "again", sender_path), expect(log, "new");
  check_name(logger1, get_peer, log_path);
  live_ok();
}
