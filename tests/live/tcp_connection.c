// SPDX-License-Identifier: Apache-2.0
// TCP connections with both ends in the tree, tcp(7): IPv4, IPv6 and both, with bytes received and not read, written
// and not sent, half closed in every state, over and with bytes left to read; every byte arrives once, in order.
#include <linux/filter.h>
#include <linux/tcp.h>
#include <poll.h>

#include "inet.h"

// include/net/tcp_states.h; netinet/tcp.h does not go together with linux/tcp.h
enum { FIN_WAIT1 = 4, FIN_WAIT2, TIME_WAIT, ENDED, CLOSE_WAIT, LAST_ACK, LISTENS, CLOSING };

enum { kPairs = 11 };
enum { kQuiet, kV6, kMapped, kBoth, kHalf, kHalfFull, kClosing, kLastAck, kOver, kReset, kSet };
static const char* const kNames[kPairs] = {"quiet",   "v6",       "mapped", "both",  "half", "half full",
                                           "closing", "last ack", "over",   "reset", "set"};

struct end {
  int fd;
  size_t written, read;  // bytes of the pattern
  int closed;            // SHUT_WR done
  int dead;              // nothing more comes from it
};
struct pair {
  struct end client, server;
} pairs[kPairs];
static struct { unsigned state; } states[kPairs][2];
static struct socket_state options[kPairs][2];

static unsigned char pattern(size_t at, int seed) { return (unsigned char)(at * 31 + at / 251 + seed); }

static struct pair make_pair(int family, int dual) {
  struct pair p = {};
  int server = bound(dual ? AF_INET6 : family, SOCK_STREAM, dual, 0), port = port_of(server);
  CHECK(listen(server, 5) == 0);
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback, .sin6_port = htons(port)};
  p.client.fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK((family == AF_INET ? connect(p.client.fd, (void*)&v4, sizeof v4)
                           : connect(p.client.fd, (void*)&v6, sizeof v6)) == 0);
  p.server.fd = accept(server, NULL, NULL);
  CHECK(p.server.fd >= 0);
  close(server);
  return p;
}

// Writes up to `most`, or until nothing more goes in.
static void put(struct end* e, size_t most, int seed) {
  unsigned char bytes[4096];
  while (most) {
    size_t n = most < sizeof bytes ? most : sizeof bytes;
    for (size_t i = 0; i < n; i++) bytes[i] = pattern(e->written + i, seed);
    ssize_t done = send(e->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done < 0) {
      CHECK(errno == EAGAIN);
      return;
    }
    e->written += (size_t)done, most -= (size_t)done;
  }
}

static void shut(struct end* e) {
  CHECK(shutdown(e->fd, SHUT_WR) == 0);
  e->closed = 1;
}

// Everything that `from` has written is read from `to`, and its end, if it has one.
static void take(struct end* to, struct end* from, int seed, const char* what) {
  unsigned char bytes[4096];
  while (to->read < from->written) {
    size_t left = from->written - to->read, wanted = left < sizeof bytes ? left : sizeof bytes;
    struct pollfd wait = {to->fd, POLLIN, 0};
    CHECK(poll(&wait, 1, 50000) == 1, "%s: nothing comes after %zu of %zu bytes", what, to->read, from->written);
    ssize_t n = recv(to->fd, bytes, wanted, 0);
    CHECK(n > 0, "%s: recv gave %zd after %zu of %zu bytes", what, n, to->read, from->written);
    for (ssize_t i = 0; i < n; i++)
      CHECK(bytes[i] == pattern(to->read + (size_t)i, seed), "%s: byte %zu is wrong", what, to->read + (size_t)i);
    to->read += (size_t)n;
  }
  if (from->closed) {
    struct pollfd wait = {to->fd, POLLIN, 0};
    CHECK(poll(&wait, 1, 50000) == 1 && recv(to->fd, bytes, 1, 0) == 0, "%s: no end of the stream", what);
  } else {
    CHECK(recv(to->fd, bytes, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN, "%s: more than was written", what);
  }
}

static struct tcp_info info_of(int fd) {
  struct tcp_info info = {};
  socklen_t size = sizeof info;
  CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
  return info;
}

static void await_state(int fd, unsigned state) {
  for (int i = 0; i < 500 && info_of(fd).tcpi_state != state; i++) live_pause();
  CHECK(info_of(fd).tcpi_state == state, "state %d instead of %u", info_of(fd).tcpi_state, state);
}

static void talk(struct pair* p, const char* what) {
  if (!p->client.closed) put(&p->client, 300, 1);
  if (!p->server.closed) put(&p->server, 200, 2);
  take(&p->server, &p->client, 1, what);
  take(&p->client, &p->server, 2, what);
}

static void set_up(void) {
  for (int i = 0; i < kPairs; i++) pairs[i] = make_pair(i == kV6 ? AF_INET6 : AF_INET, i == kMapped);
  for (int i = 0; i < kPairs; i++) put(&pairs[i].client, 1000, 1), put(&pairs[i].server, 500, 2);
  take(&pairs[kSet].server, &pairs[kSet].client, 1, "set");
  put(&pairs[kV6].client, SIZE_MAX, 1);
  put(&pairs[kBoth].client, SIZE_MAX, 1), put(&pairs[kBoth].server, SIZE_MAX, 2);
  shut(&pairs[kHalf].client);
  put(&pairs[kHalfFull].client, SIZE_MAX, 1), shut(&pairs[kHalfFull].client);
  put(&pairs[kClosing].client, SIZE_MAX, 1), shut(&pairs[kClosing].client), shut(&pairs[kClosing].server);
  put(&pairs[kLastAck].client, SIZE_MAX, 1), shut(&pairs[kLastAck].server);
  await_state(pairs[kLastAck].client.fd, CLOSE_WAIT);
  shut(&pairs[kLastAck].client);
  shut(&pairs[kOver].client);
  await_state(pairs[kOver].server.fd, CLOSE_WAIT);
  shut(&pairs[kOver].server);
  await_state(pairs[kHalf].client.fd, FIN_WAIT2), await_state(pairs[kHalf].server.fd, CLOSE_WAIT);
  await_state(pairs[kHalfFull].client.fd, FIN_WAIT1);
  await_state(pairs[kClosing].client.fd, CLOSING), await_state(pairs[kClosing].server.fd, FIN_WAIT2);
  await_state(pairs[kLastAck].client.fd, LAST_ACK), await_state(pairs[kLastAck].server.fd, FIN_WAIT2);
  await_state(pairs[kOver].client.fd, ENDED), await_state(pairs[kOver].server.fd, ENDED);
  struct linger hard = {1, 0};
  CHECK(setsockopt(pairs[kReset].client.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
  close(pairs[kReset].client.fd);
  pairs[kReset].client.closed = 1;
  await_state(pairs[kReset].server.fd, ENDED);
  int error = 0;
  socklen_t size = sizeof error;
  CHECK(getsockopt(pairs[kReset].server.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == ECONNRESET);

  int fd = pairs[kSet].client.fd;
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1), set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 77);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1), set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 123456);
  set_option(fd, IPPROTO_IP, IP_TOS, 0x10), set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4000), set_option(fd, SOL_SOCKET, SO_RCVBUF, 60000);
  CHECK(setsockopt(pairs[kSet].server.fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
  set_option(pairs[kSet].server.fd, IPPROTO_TCP, TCP_CORK, 1);
  struct sock_filter all = {0x06, 0, 0, 0xffffffff};  // ret
  struct sock_fprog program = {1, &all};
  CHECK(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
  CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
}

static int stable(int level, int name) {  // what the kernel computes as it goes is left out
  static const int kMoves[][2] = {{SOL_SOCKET, SO_SNDBUF},
                                  {SOL_SOCKET, SO_RCVBUF},
                                  {IPPROTO_TCP, TCP_MAXSEG},
                                  {IPPROTO_TCP, TCP_WINDOW_CLAMP},
                                  {IPPROTO_TCP, TCP_QUICKACK},
                                  {IPPROTO_IPV6, 26 /*V6ONLY*/},
                                  {IPPROTO_IP, 14 /*MTU*/},
                                  {IPPROTO_IPV6, 24 /*MTU*/},
                                  {IPPROTO_TCP, 24},
                                  {IPPROTO_IP, 52 /*PROTOCOL: the port*/},
                                  {IPPROTO_IP, 32},
                                  {IPPROTO_IP, 33},
                                  {IPPROTO_IP, 34},  // of multicast
                                  {IPPROTO_IPV6, 17},
                                  {IPPROTO_IPV6, 18},
                                  {IPPROTO_IPV6, 19},
                                  {IPPROTO_IPV6, 61 /*PATHMTU*/}};
  for (size_t i = 0; i < sizeof kMoves / sizeof *kMoves; i++)
    if (kMoves[i][0] == level && kMoves[i][1] == name) return 0;
  return 1;
}

static void same_options(const struct socket_state* before, const char* what) {
  struct socket_state now;
  remember(&now, before->fd);
  CHECK(now.name_size == before->name_size && !memcmp(&now.name, &before->name, now.name_size), "%s: another address",
        what);
  CHECK(now.peer_size == before->peer_size && !memcmp(&now.peer, &before->peer, now.peer_size), "%s: another peer",
        what);
  CHECK(now.flags == before->flags && now.descriptor_flags == before->descriptor_flags, "%s: flags", what);
  size_t at = 0;
  for (size_t l = 0; l < sizeof kLevels / sizeof *kLevels; l++)
    for (int name = 1; name <= kLevels[l].last; name++, at++)
      if (stable(kLevels[l].level, name))
        CHECK(now.options[at].size == before->options[at].size &&
                  !memcmp(now.options[at].value, before->options[at].value, kValue),
              "%s: option %d:%d is %d, was %d", what, kLevels[l].level, name, *(int*)now.options[at].value,
              *(int*)before->options[at].value);
}

int main(int argc, char** argv) {
  live_init(argc, argv);
  // Locks and connections are both restored late, by the same descriptors.
  int locked = open(live_path("locked"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  CHECK(locked >= 0 && fcntl(locked, F_SETLK, &whole) == 0);
  loopback_up();
  set_up();
  for (int i = 0; i < kPairs; i++) {
    struct end* ends[] = {&pairs[i].client, &pairs[i].server};
    for (int j = 0; j < 2; j++) {
      if (i == kReset && j == 0) continue;
      states[i][j].state = info_of(ends[j]->fd).tcpi_state;
      remember(&options[i][j], ends[j]->fd);
    }
  }

  live_ready();
  live_wait();

  for (int i = 0; i < kPairs; i++) {
    struct end* ends[] = {&pairs[i].client, &pairs[i].server};
    for (int j = 0; j < 2; j++) {
      char what[64];
      snprintf(what, sizeof what, "%s, %s", kNames[i], j ? "server" : "client");
      if (i == kReset && j == 0) continue;
      struct tcp_info now = info_of(ends[j]->fd);
      CHECK(now.tcpi_state == states[i][j].state, "%s: state %d, was %d", what, now.tcpi_state, states[i][j].state);
      same_options(&options[i][j], what);
    }
  }
  set_option(pairs[kSet].server.fd, IPPROTO_TCP, TCP_CORK, 0);
  for (int i = 0; i < kPairs; i++) {
    if (i != kReset) {
      talk(&pairs[i], kNames[i]);
      continue;
    }
    take(&pairs[i].server, &pairs[i].client, 1, kNames[i]);
    char byte;
    CHECK(recv(pairs[i].server.fd, &byte, 1, 0) == 0 && send(pairs[i].server.fd, "x", 1, MSG_NOSIGNAL) < 0 &&
              errno == EPIPE,
          "reset");
  }
  // All of them end as they should.
  for (int i = 0; i < kPairs; i++) {
    if (i == kReset) continue;
    if (!pairs[i].client.closed) shut(&pairs[i].client);
    if (!pairs[i].server.closed) shut(&pairs[i].server);
    take(&pairs[i].server, &pairs[i].client, 1, kNames[i]);
    take(&pairs[i].client, &pairs[i].server, 2, kNames[i]);
  }
  live_ok();
}
