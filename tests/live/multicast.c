// SPDX-License-Identifier: Apache-2.0
// Multicast groups, ip(7), ipv6(7): of all sources, of some, of all but some, IPv4 and IPv6; nobody else's datagrams come in,
// and who has joined can leave.
#include "inet.h"

static const uint32_t kAll = 0xe1020304, kSome = 0xe8010203, kOthers = 0xe1020305;
static struct in6_addr all6, some6;

static struct sockaddr_storage v4(uint32_t address) {
  struct sockaddr_storage out = {0};
  struct sockaddr_in *in = (void *)&out;
  in->sin_family = AF_INET, in->sin_addr.s_addr = htonl(address);
  return out;
}
static struct sockaddr_storage v6(const struct in6_addr *address) {
  struct sockaddr_storage out = {0};
  struct sockaddr_in6 *in = (void *)&out;
  in->sin6_family = AF_INET6, in->sin6_addr = *address;
  return out;
}
static void with_source(int fd, int level, int name, struct sockaddr_storage group, struct sockaddr_storage source) {
  struct group_source_req request = {.gsr_interface = 1, .gsr_group = group, .gsr_source = source};
  CHECK(setsockopt(fd, level, name, &request, sizeof request) == 0, "option %d", name);
}
// Mode and first source of a membership.
static int filter(int fd, int level, struct sockaddr_storage group, int *count, struct sockaddr_storage *first) {
  char room[GROUP_FILTER_SIZE(8)];
  struct group_filter *f = (void *)room;
  memset(room, 0, sizeof room);
  f->gf_interface = 1, f->gf_numsrc = 8, f->gf_group = group;
  socklen_t size = sizeof room;
  if (getsockopt(fd, level, MCAST_MSFILTER, f, &size)) return -1;
  *count = f->gf_numsrc;
  *first = f->gf_slist[0];
  return f->gf_fmode;
}
static void post(int fd, struct sockaddr_storage to, int port, char byte) {
  if (to.ss_family == AF_INET) ((struct sockaddr_in *)&to)->sin_port = htons(port);
  else ((struct sockaddr_in6 *)&to)->sin6_port = htons(port);
  CHECK(sendto(fd, &byte, 1, 0, (void *)&to, to.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) == 1);
}
static int next(int fd) {
  char byte = 0;
  return recv(fd, &byte, 1, MSG_DONTWAIT) == 1 ? byte : 0;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  loopback_up();
  inet_pton(AF_INET6, "ff15::4242", &all6), inet_pton(AF_INET6, "ff35::4243", &some6);
  int fd = bound(AF_INET, SOCK_DGRAM, 1, 0), fd6 = bound(AF_INET6, SOCK_DGRAM, 1, 0), none = bound(AF_INET, SOCK_DGRAM, 1, 0);
  for (int i = 0; i < 2; i++) set_option(i ? fd : none, IPPROTO_IP, 49 /* IP_MULTICAST_ALL */, 0);
  struct ip_mreqn all = {.imr_multiaddr.s_addr = htonl(kAll), .imr_ifindex = 1}, others = {.imr_multiaddr.s_addr = htonl(kOthers), .imr_ifindex = 1};
  CHECK(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &all, sizeof all) == 0);
  CHECK(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &others, sizeof others) == 0);
  with_source(fd, IPPROTO_IP, MCAST_BLOCK_SOURCE, v4(kOthers), v4(INADDR_LOOPBACK));
  with_source(fd, IPPROTO_IP, MCAST_JOIN_SOURCE_GROUP, v4(kSome), v4(INADDR_LOOPBACK));
  with_source(fd, IPPROTO_IP, MCAST_JOIN_SOURCE_GROUP, v4(kSome), v4(0x0a0a0a0a));
  struct group_req all_v6 = {.gr_interface = 1, .gr_group = v6(&all6)};
  CHECK(setsockopt(fd6, IPPROTO_IPV6, MCAST_JOIN_GROUP, &all_v6, sizeof all_v6) == 0);
  with_source(fd6, IPPROTO_IPV6, MCAST_JOIN_SOURCE_GROUP, v6(&some6), v6(&in6addr_loopback));
  // An IPv4 group of an IPv6 socket.
  CHECK(setsockopt(fd6, IPPROTO_IP, IP_ADD_MEMBERSHIP, &all, sizeof all) == 0);
  int from = bound(AF_INET, SOCK_DGRAM, 0, 0);
  set_option(from, IPPROTO_IP, IP_MULTICAST_TTL, 0);
  struct ip_mreqn lo = {.imr_ifindex = 1};
  CHECK(setsockopt(from, IPPROTO_IP, IP_MULTICAST_IF, &lo, sizeof lo) == 0);

  live_ready();
  live_wait();

  int count;
  struct sockaddr_storage first;
  CHECK(filter(fd, IPPROTO_IP, v4(kAll), &count, &first) == MCAST_EXCLUDE && count == 0);
  CHECK(filter(fd, IPPROTO_IP, v4(kOthers), &count, &first) == MCAST_EXCLUDE && count == 1);
  CHECK(((struct sockaddr_in *)&first)->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
  CHECK(filter(fd, IPPROTO_IP, v4(kSome), &count, &first) == MCAST_INCLUDE && count == 2);
  CHECK(filter(fd6, IPPROTO_IPV6, v6(&all6), &count, &first) == MCAST_EXCLUDE && count == 0);
  CHECK(filter(fd6, IPPROTO_IPV6, v6(&some6), &count, &first) == MCAST_INCLUDE && count == 1);
  CHECK(filter(fd6, IPPROTO_IP, v4(kAll), &count, &first) == MCAST_EXCLUDE && count == 0);
  CHECK(filter(none, IPPROTO_IP, v4(kAll), &count, &first) == -1, "a socket that has not joined");
  post(from, v4(kAll), port_of(fd), 'a'), post(from, v4(kOthers), port_of(fd), 'o'), post(from, v4(kSome), port_of(fd), 's');
  CHECK(next(fd) == 'a', "the group");
  CHECK(next(fd) == 's', "not the blocked source, but the wanted one");
  CHECK(next(fd) == 0);
  post(from, v4(kAll), port_of(none), 'n');
  CHECK(next(none) == 0, "a group of others");
  struct ip_mreq leave = {.imr_multiaddr.s_addr = htonl(kAll), .imr_interface.s_addr = htonl(INADDR_LOOPBACK)};
  CHECK(setsockopt(fd, IPPROTO_IP, IP_DROP_MEMBERSHIP, &all, sizeof all) == 0 && filter(fd, IPPROTO_IP, v4(kAll), &count, &first) == -1);
  CHECK(setsockopt(fd, IPPROTO_IP, IP_DROP_MEMBERSHIP, &leave, sizeof leave) < 0);
  live_ok();
}
