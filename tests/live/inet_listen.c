// SPDX-License-Identifier: Apache-2.0
// TCP sockets at rest, tcp(7): listening on IPv4, IPv6 and both, two on one port, bound only, new; every option is as
// before and connections are accepted.
#include "inet.h"
#include <linux/tcp.h>

enum { kV4, kV6, kDual, kFirst, kSecond, kDevice, kBound, kNew, kOwned, kSockets };
static struct socket_state state[kSockets];
static struct tcp_info info[kSockets];

static struct tcp_info info_of(int fd) {
  struct tcp_info got = {};
  socklen_t size = sizeof got;
  CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &got, &size) == 0);
  return got;
}

static void set_options(int fd) {
  set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, SOL_SOCKET, SO_PRIORITY, 3);
  set_option(fd, SOL_SOCKET, SO_RCVBUF, 40000);
  set_option(fd, SOL_SOCKET, SO_OOBINLINE, 1);
  set_option(fd, SOL_SOCKET, SO_MARK, 77);
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 77);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 7);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 5);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 12345);
  set_option(fd, IPPROTO_TCP, TCP_LINGER2, 20);
  set_option(fd, IPPROTO_IP, IP_TOS, 0x10);
  struct linger slow = {1, 9};
  struct timeval late = {3, 500000};
  CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &slow, sizeof slow) == 0);
  CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &late, sizeof late) == 0);
  CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
}

// A connection to `port` arrives at `server`, and bytes go both ways.
static void serve(int server, int family, int port) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback, .sin6_port = htons(port)};
  int client = socket(family, SOCK_STREAM, 0);
  CHECK((family == AF_INET ? connect(client, (void *)&v4, sizeof v4) : connect(client, (void *)&v6, sizeof v6)) == 0, "port %d", port);
  int peer = accept(server, NULL, NULL);
  CHECK(peer >= 0, "accept on port %d", port);
  char text[8] = "";
  CHECK(write(client, "ask", 3) == 3 && read(peer, text, sizeof text) == 3 && !memcmp(text, "ask", 3));
  CHECK(write(peer, "answer", 6) == 6 && read(client, text, sizeof text) == 6 && !memcmp(text, "answer", 6));
  struct linger hard = {1, 0};  // no TIME_WAIT is left
  CHECK(setsockopt(client, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
  close(client);
  close(peer);
}

static void both_get_some(int first, int second, int port) {
  fcntl(first, F_SETFL, O_NONBLOCK), fcntl(second, F_SETFL, O_NONBLOCK);
  int got[2] = {0, 0};
  for (int i = 0; i < 200 && !(got[0] && got[1]); i++) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int client = socket(AF_INET, SOCK_STREAM, 0), a;
    CHECK(connect(client, (void *)&to, sizeof to) == 0);
    int b = -1;
    a = accept(first, NULL, NULL);
    if (a < 0) b = accept(second, NULL, NULL);
    CHECK(a >= 0 || b >= 0, "nobody accepts on port %d", port);
    got[0] += a >= 0, got[1] += b >= 0;
    struct linger hard = {1, 0};
    CHECK(setsockopt(client, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
    close(client);
    close(a >= 0 ? a : b);
  }
  CHECK(got[0] && got[1], "%d and %d connections", got[0], got[1]);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  loopback_up();
  int fd[kSockets];
  fd[kV4] = bound(AF_INET, SOCK_STREAM, 0, 0);
  set_options(fd[kV4]);
  CHECK(listen(fd[kV4], 7) == 0);
  fd[kV6] = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in6 only = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
  set_option(fd[kV6], IPPROTO_IPV6, IPV6_V6ONLY, 1);
  CHECK(bind(fd[kV6], (void *)&only, sizeof only) == 0 && listen(fd[kV6], 3) == 0);
  fd[kDual] = bound(AF_INET6, SOCK_STREAM, 1, 0);
  CHECK(listen(fd[kDual], 100) == 0);
  int probe = bound(AF_INET, SOCK_STREAM, 0, 0), port = port_of(probe);
  close(probe);
  fd[kFirst] = bound(AF_INET, SOCK_STREAM, 0, port);
  fd[kSecond] = bound(AF_INET, SOCK_STREAM, 0, port);
  CHECK(listen(fd[kFirst], 5) == 0 && listen(fd[kSecond], 5) == 0);
  fd[kDevice] = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(setsockopt(fd[kDevice], SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) == 0 && listen(fd[kDevice], 5) == 0);
  fd[kBound] = bound(AF_INET, SOCK_STREAM, 0, 0);
  fd[kNew] = socket(AF_INET, SOCK_STREAM, 0);
  set_options(fd[kNew]);
  fd[kOwned] = bound(AF_INET, SOCK_STREAM, 0, 0);
  CHECK(fchown(fd[kOwned], 1234, -1) == 0 && listen(fd[kOwned], 5) == 0);
  int twin = dup(fd[kV4]);
  for (int i = 0; i < kSockets; i++) remember(&state[i], fd[i]), info[i] = info_of(fd[i]);

  live_ready();
  live_wait();

  for (int i = 0; i < kSockets; i++) {
    char what[32];
    snprintf(what, sizeof what, "socket %d", i);
    check_same(&state[i], what);
    struct tcp_info now = info_of(fd[i]);
    CHECK(now.tcpi_state == info[i].tcpi_state && now.tcpi_sacked == info[i].tcpi_sacked, "%s: state %d, backlog %u", what, now.tcpi_state,
          now.tcpi_sacked);
  }
  CHECK(syscall(SYS_kcmp, getpid(), getpid(), 0, fd[kV4], twin) == 0, "no longer one description");
  serve(fd[kV4], AF_INET, port_of(fd[kV4]));
  CHECK(fcntl(twin, F_SETFL, 0) == 0 && !(fcntl(fd[kV4], F_GETFL) & O_NONBLOCK));
  serve(fd[kV6], AF_INET6, port_of(fd[kV6]));
  serve(fd[kDual], AF_INET, port_of(fd[kDual]));
  serve(fd[kDual], AF_INET6, port_of(fd[kDual]));
  both_get_some(fd[kFirst], fd[kSecond], port);
  serve(fd[kDevice], AF_INET, port_of(fd[kDevice]));
  serve(fd[kOwned], AF_INET, port_of(fd[kOwned]));
  CHECK(listen(fd[kBound], 5) == 0);
  serve(fd[kBound], AF_INET, port_of(fd[kBound]));
  CHECK(listen(fd[kNew], 5) == 0);
  live_ok();
}
