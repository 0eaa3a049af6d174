// SPDX-License-Identifier: Apache-2.0
// What the programs with inet sockets share: everything that can be asked of a socket, before and after.
#pragma once

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "live.h"

// Levels and how far their numbers go in Linux.
static const struct {
  int level, last;
} kLevels[] = {{SOL_SOCKET, 80}, {IPPROTO_IP, 52}, {IPPROTO_TCP, 40}, {IPPROTO_UDP, 110}, {IPPROTO_IPV6, 80}};
enum { kValue = 16, kCount = 80 + 52 + 40 + 110 + 80 };

struct socket_state {
  int fd;
  struct sockaddr_storage name, peer;
  socklen_t name_size, peer_size;
  int flags, descriptor_flags;
  uid_t uid;
  struct {
    socklen_t size;
    char value[kValue];
  } options[kCount];
};

// What is the socket's own and no option: errors, identities, counters, keys of the namespace.
static int not_an_option(int level, int name) {
  static const int kNot[][2] = {{SOL_SOCKET, SO_ERROR}, {SOL_SOCKET, 17},  {SOL_SOCKET, 26},  {SOL_SOCKET, 31},
                                {SOL_SOCKET, 49},       {SOL_SOCKET, 55},  {SOL_SOCKET, 56},  {SOL_SOCKET, 57},
                                {SOL_SOCKET, 59},       {SOL_SOCKET, 71},  {SOL_SOCKET, 77},  {IPPROTO_TCP, 11},
                                {IPPROTO_TCP, 24},      {IPPROTO_TCP, 26}, {IPPROTO_TCP, 33}, {IPPROTO_TCP, 35}};
  for (size_t i = 0; i < sizeof kNot / sizeof *kNot; i++)
    if (kNot[i][0] == level && kNot[i][1] == name) return 1;
  return 0;
}

static void remember(struct socket_state* s, int fd) {
  memset(s, 0, sizeof *s);
  s->fd = fd;
  s->name_size = sizeof s->name;
  s->peer_size = sizeof s->peer;
  CHECK(getsockname(fd, (void*)&s->name, &s->name_size) == 0);
  if (getpeername(fd, (void*)&s->peer, &s->peer_size)) s->peer_size = 0;
  s->flags = fcntl(fd, F_GETFL);
  s->descriptor_flags = fcntl(fd, F_GETFD);
  struct stat st;
  CHECK(fstat(fd, &st) == 0);
  s->uid = st.st_uid;
  size_t at = 0;
  for (size_t l = 0; l < sizeof kLevels / sizeof *kLevels; l++)
    for (int name = 1; name <= kLevels[l].last; name++, at++) {
      s->options[at].size = kValue;
      if (not_an_option(kLevels[l].level, name) ||
          getsockopt(fd, kLevels[l].level, name, s->options[at].value, &s->options[at].size))
        s->options[at].size = 0;
    }
}

__attribute__((unused)) static void check_same(const struct socket_state* before, const char* what) {
  struct socket_state now;
  remember(&now, before->fd);
  CHECK(now.name_size == before->name_size && !memcmp(&now.name, &before->name, now.name_size), "%s: another address",
        what);
  CHECK(now.peer_size == before->peer_size && !memcmp(&now.peer, &before->peer, now.peer_size), "%s: another peer",
        what);
  CHECK(now.flags == before->flags, "%s: flags %#x, not %#x", what, now.flags, before->flags);
  CHECK(now.descriptor_flags == before->descriptor_flags, "%s: descriptor flags", what);
  CHECK(now.uid == before->uid, "%s: owner %u, not %u", what, now.uid, before->uid);
  size_t at = 0;
  for (size_t l = 0; l < sizeof kLevels / sizeof *kLevels; l++)
    for (int name = 1; name <= kLevels[l].last; name++, at++)
      CHECK(now.options[at].size == before->options[at].size &&
                !memcmp(now.options[at].value, before->options[at].value, kValue),
            "%s: option %d:%d is %d, was %d", what, kLevels[l].level, name, *(int*)now.options[at].value,
            *(int*)before->options[at].value);
}

static void set_option(int fd, int level, int name, int value) {
  CHECK(setsockopt(fd, level, name, &value, sizeof value) == 0, "option %d:%d = %d", level, name, value);
}

// A namespace is born with its loopback device down.
static void loopback_up(void) {
  struct ifreq request = {.ifr_name = "lo"};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0);
  request.ifr_flags |= IFF_UP;
  CHECK(ioctl(fd, SIOCSIFFLAGS, &request) == 0);
  close(fd);
}

__attribute__((unused)) static int bound(int family, int type, int any, int port) {
  int fd = socket(family, type, 0);
  CHECK(fd >= 0);
  struct sockaddr_in v4 = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(any ? INADDR_ANY : INADDR_LOOPBACK), .sin_port = htons(port)};
  struct sockaddr_in6 v6 = {
      .sin6_family = AF_INET6, .sin6_addr = any ? in6addr_any : in6addr_loopback, .sin6_port = htons(port)};
  set_option(fd, SOL_SOCKET, SO_REUSEPORT, port != 0);
  CHECK((family == AF_INET ? bind(fd, (void*)&v4, sizeof v4) : bind(fd, (void*)&v6, sizeof v6)) == 0);
  return fd;
}

__attribute__((unused)) static int port_of(int fd) {
  struct sockaddr_storage name;
  socklen_t size = sizeof name;
  CHECK(getsockname(fd, (void*)&name, &size) == 0);
  return ntohs(name.ss_family == AF_INET ? ((struct sockaddr_in*)&name)->sin_port
                                         : ((struct sockaddr_in6*)&name)->sin6_port);
}
