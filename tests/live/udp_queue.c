// SPDX-License-Identifier: Apache-2.0
// Datagrams that nobody has read, udp(7): of every size, with their senders, their order, and what their receivers have
// asked to be told (address, TTL, TOS, size of segments). One of several sockets at a port keeps its own.
#include "inet.h"
#include <netinet/udp.h>

enum { kUdpLite = 136, kUdpGro = 104, kLarge = 65507, kAll = 6 };
static const int kSizes[kAll] = {5, 1, 1400, 20000, kLarge, 3};
static char bytes[1 << 17];

static int udp(int family, int protocol, struct sockaddr_storage *name) {
  int fd = socket(family, SOCK_DGRAM, protocol);
  socklen_t size = sizeof *name;
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
  CHECK(fd >= 0 && (family == AF_INET ? bind(fd, (void *)&v4, sizeof v4) : bind(fd, (void *)&v6, sizeof v6)) == 0);
  CHECK(getsockname(fd, (void *)name, &size) == 0);
  return fd;
}
static socklen_t size_of(const struct sockaddr_storage *name) {
  return name->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}
static void fill(int seed, int size) {
  for (int i = 0; i < size; i++) bytes[i] = (char)(seed * 31 + i * 7 + i / 251);
}
static void post(int from, const struct sockaddr_storage *to, int seed, int size) {
  fill(seed, size);
  CHECK(sendto(from, bytes, size, 0, (void *)to, size_of(to)) == size, "%d bytes", size);
}
// Control messages are left in `control`.
static char control[1024];
static struct msghdr take(int fd, int seed, int size, const struct sockaddr_storage *from) {
  static char got[1 << 17];
  static struct sockaddr_storage source;
  struct iovec part = {got, sizeof got};
  struct msghdr head = {.msg_name = &source, .msg_namelen = sizeof source, .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t n = recvmsg(fd, &head, MSG_DONTWAIT);
  CHECK(n == size, "datagram %d has %zd bytes, not %d", seed, n, size);
  fill(seed, size);
  CHECK(memcmp(got, bytes, size) == 0, "datagram %d has other bytes", seed);
  if (from) CHECK(head.msg_namelen == size_of(from) && !memcmp(&source, from, head.msg_namelen), "datagram %d is from port %d", seed, ntohs(((struct sockaddr_in *)&source)->sin_port));
  return head;
}
static void *told(struct msghdr *head, int level, int type) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c; c = CMSG_NXTHDR(head, c))
    if (c->cmsg_level == level && c->cmsg_type == type) return CMSG_DATA(c);
  live_fail("no control message %d:%d", level, type);
}
static void empty(int fd) {
  char byte;
  CHECK(recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN, "there is more in the queue");
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  loopback_up();
  struct sockaddr_storage a, b, a6, b6, any, lite, lite_peer;
  int client = udp(AF_INET, 0, &a), server = udp(AF_INET, 0, &b), client6 = udp(AF_INET6, 0, &a6), server6 = udp(AF_INET6, 0, &b6);
  set_option(server, SOL_SOCKET, SO_RCVBUF, 400000);
  for (int i = 0; i < kAll; i++) post(client, &b, i, kSizes[i]), post(client6, &b6, 10 + i, kSizes[i] == kLarge ? 60000 : kSizes[i]);

  // Bound to every address, IPv4 and IPv6, and told all that there is to tell.
  int both = bound(AF_INET6, SOCK_DGRAM, 1, 0);
  set_option(both, IPPROTO_IP, IP_PKTINFO, 1), set_option(both, IPPROTO_IP, IP_RECVTTL, 1), set_option(both, IPPROTO_IP, IP_RECVTOS, 1);
  set_option(both, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1), set_option(both, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1), set_option(both, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
  set_option(client, IPPROTO_IP, IP_TTL, 33), set_option(client, IPPROTO_IP, IP_TOS, 0x10);
  set_option(client6, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 44), set_option(client6, IPPROTO_IPV6, IPV6_TCLASS, 0x20);
  any = a6;
  ((struct sockaddr_in6 *)&any)->sin6_port = htons(port_of(both));
  post(client6, &any, 20, 100);
  struct sockaddr_storage any4 = a;
  ((struct sockaddr_in *)&any4)->sin_addr.s_addr = htonl(0x7f010203);
  ((struct sockaddr_in *)&any4)->sin_port = htons(port_of(both));
  post(client, &any4, 21, 101);

  // What came before the peer was chosen stays; and a peek with an offset goes on where it was.
  int chosen = udp(AF_INET, 0, &any);
  post(server, &any, 30, 10), post(client, &any, 31, 11);
  CHECK(connect(chosen, (void *)&a, size_of(&a)) == 0);
  set_option(chosen, SOL_SOCKET, SO_PEEK_OFF, 4);

  // Two at one port: each has its own.
  int twins[2] = {socket(AF_INET, SOCK_DGRAM, 0), socket(AF_INET, SOCK_DGRAM, 0)}, held[2] = {0, 0};
  struct sockaddr_storage port = b;
  ((struct sockaddr_in *)&port)->sin_port = 0;
  for (int i = 0; i < 2; i++) {
    socklen_t size = sizeof port;
    set_option(twins[i], SOL_SOCKET, SO_REUSEPORT, 1);
    CHECK(bind(twins[i], (void *)&port, size_of(&port)) == 0 && getsockname(twins[i], (void *)&port, &size) == 0);
  }
  for (int i = 0; i < 8; i++) {
    struct sockaddr_storage name;
    int fd = udp(AF_INET, 0, &name);
    post(fd, &port, 40, 7);
    close(fd);
  }
  for (int i = 0; i < 2; i++) {
    int n = 0;
    set_option(twins[i], SOL_SOCKET, SO_PEEK_OFF, 0);
    while (recv(twins[i], bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT) == 7) n++;
    set_option(twins[i], SOL_SOCKET, SO_PEEK_OFF, -1);
    held[i] = n;
  }
  CHECK(held[0] + held[1] == 8);

  int lite_fd = socket(AF_INET, SOCK_DGRAM, kUdpLite), lite_server = -1;
  if (lite_fd >= 0) {
    close(lite_fd);
    lite_fd = udp(AF_INET, kUdpLite, &lite_peer), lite_server = udp(AF_INET, kUdpLite, &lite);
    post(lite_fd, &lite, 50, 99);
  }
  // Put together by the kernel, and told of the size of each.
  struct sockaddr_storage segments;
  int gro = udp(AF_INET, 0, &segments);
  set_option(gro, IPPROTO_UDP, kUdpGro, 1);
  set_option(client, IPPROTO_UDP, 103 /* UDP_SEGMENT */, 1000);
  post(client, &segments, 60, 3500);
  set_option(client, IPPROTO_UDP, 103, 0);
  // The sender is gone, and nothing is in it.
  struct sockaddr_storage gone;
  int gone_fd = udp(AF_INET, 0, &gone), last = udp(AF_INET, 0, &any);
  post(gone_fd, &any, 70, 0), post(gone_fd, &any, 71, 8);
  close(gone_fd);

  struct socket_state state, state6, state_both;
  remember(&state, server), remember(&state6, server6), remember(&state_both, both);
  live_ready();
  live_wait();

  check_same(&state, "server"), check_same(&state6, "server6"), check_same(&state_both, "both");
  for (int i = 0; i < kAll; i++) take(server, i, kSizes[i], &a), take(server6, 10 + i, kSizes[i] == kLarge ? 60000 : kSizes[i], &a6);
  empty(server), empty(server6);
  struct msghdr head = take(both, 20, 100, &a6);
  struct in6_pktinfo *info6 = told(&head, IPPROTO_IPV6, IPV6_PKTINFO);
  CHECK(!memcmp(&info6->ipi6_addr, &in6addr_loopback, 16) && info6->ipi6_ifindex == 1);
  CHECK(*(int *)told(&head, IPPROTO_IPV6, IPV6_HOPLIMIT) == 44 && *(int *)told(&head, IPPROTO_IPV6, IPV6_TCLASS) == 0x20);
  head = take(both, 21, 101, NULL);
  struct in_pktinfo *info = told(&head, IPPROTO_IP, IP_PKTINFO);
  CHECK(info->ipi_addr.s_addr == htonl(0x7f010203) && info->ipi_ifindex == 1, "to %x by %d", ntohl(info->ipi_addr.s_addr), info->ipi_ifindex);
  CHECK(*(int *)told(&head, IPPROTO_IP, IP_TTL) == 33 && *(uint8_t *)told(&head, IPPROTO_IP, IP_TOS) == 0x10);
  int offset = 0;
  socklen_t offset_size = sizeof offset;
  CHECK(getsockopt(chosen, SOL_SOCKET, SO_PEEK_OFF, &offset, &offset_size) == 0 && offset == 4, "the offset is %d", offset);
  take(chosen, 30, 10, &b), take(chosen, 31, 11, &a), empty(chosen);
  for (int i = 0; i < 2; i++) {
    while (held[i]-- > 0) take(twins[i], 40, 7, NULL);
    empty(twins[i]);
  }
  if (lite_fd >= 0) take(lite_server, 50, 99, &lite_peer), empty(lite_server);
  size_t got = 0;
  for (ssize_t n; (n = recv(gro, bytes + got, sizeof bytes - got, MSG_DONTWAIT)) > 0; got += n) CHECK(n >= 500 && n % 500 == 0, "a piece of %zd", n);
  CHECK(got == 3500);
  static char wanted[3500];
  memcpy(wanted, bytes, got);
  fill(60, 3500);
  CHECK(!memcmp(wanted, bytes, 3500), "other segments");
  if (recv(last, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT) == 0) take(last, 70, 0, &gone);
  take(last, 71, 8, &gone), empty(last);
  // Still in use.
  post(client, &b, 80, 9), take(server, 80, 9, &a);
  live_ok();
}
