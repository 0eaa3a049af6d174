// SPDX-License-Identifier: Apache-2.0
// Raw sockets, sockets for pings and UDPLITE, raw(7), icmp(7), udplite(7), and packet filters of all: options, filters
// and addresses are as before, and packets go through them. A datagram that nobody has read may be gone.
#include <linux/filter.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

#include "inet.h"

static void ping(int fd) {
  struct icmphdr echo = {.type = ICMP_ECHO, .un.echo = {htons(77), htons(1)}};
  unsigned sum = ICMP_ECHO + htons(77) + htons(1);
  echo.checksum = (unsigned short)~sum;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  CHECK(sendto(fd, &echo, sizeof echo, 0, (void*)&to, sizeof to) == sizeof echo);
  unsigned char packet[256];
  ssize_t n = recv(fd, packet, sizeof packet, 0);
  CHECK(n >= 28 && packet[20] == ICMP_ECHOREPLY, "%zd bytes, type %d", n, packet[20]);
}

int main(int argc, char** argv) {
  live_init(argc, argv);
  loopback_up();
  int raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), raw6 = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6);
  int head = socket(AF_INET, SOCK_RAW, IPPROTO_RAW), lite = bound(AF_INET, SOCK_DGRAM, 0, 0),
      filtered = bound(AF_INET, SOCK_DGRAM, 0, 0);
  unsigned replies = ~(1u << ICMP_ECHOREPLY);
  CHECK(setsockopt(raw, 255, 1, &replies, sizeof replies) == 0);
  struct icmp6_filter filter6;
  ICMP6_FILTER_SETBLOCKALL(&filter6);
  ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter6);
  CHECK(setsockopt(raw6, IPPROTO_ICMPV6, ICMP6_FILTER, &filter6, sizeof filter6) == 0);
  CHECK(sendto(
            filtered, "old", 3, 0,
            (struct sockaddr*)&(struct sockaddr_in){
                .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port_of(filtered))},
            sizeof(struct sockaddr_in)) == 3);
  struct sock_filter short_ones[] = {
      {0x80, 0, 0, 0}, {0x35, 0, 1, 20}, {0x06, 0, 0, 0}, {0x06, 0, 0, 0xffff}};  // not from 20 bytes on
  struct sock_fprog program = {4, short_ones};
  CHECK(setsockopt(filtered, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
  int lite_real = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);  // not in every kernel
  if (lite_real >= 0) close(lite), lite = lite_real, set_option(lite, IPPROTO_UDPLITE, 10, 12);
  ping(raw);
  struct socket_state state[5];
  int all[] = {raw, raw6, head, lite, filtered};
  for (int i = 0; i < 5; i++) remember(&state[i], all[i]);

  live_ready();
  live_wait();

  for (int i = 0; i < 5; i++) {
    char what[16];
    snprintf(what, sizeof what, "socket %d", i);
    check_same(&state[i], what);
  }
  unsigned got = 0;
  socklen_t size = sizeof got;
  CHECK(getsockopt(raw, 255, 1, &got, &size) == 0 && got == replies, "filter of ICMP %#x", got);
  struct icmp6_filter got6;
  size = sizeof got6;
  CHECK(getsockopt(raw6, IPPROTO_ICMPV6, ICMP6_FILTER, &got6, &size) == 0 && !memcmp(&got6, &filter6, sizeof got6),
        "filter of ICMPv6");
  ping(raw);
  struct sock_filter now[4];
  size = 4;
  CHECK(getsockopt(filtered, SOL_SOCKET, SO_GET_FILTER, now, &size) == 0 && size == 4 &&
            !memcmp(now, short_ones, sizeof now),
        "packet filter");
  struct sockaddr_in self = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port_of(filtered))};
  char text[64];
  while (recv(filtered, text, sizeof text, MSG_DONTWAIT) > 0) {
  }
  CHECK(sendto(filtered, "a long one that is dropped", 26, 0, (void*)&self, sizeof self) == 26);
  CHECK(sendto(filtered, "new", 3, 0, (void*)&self, sizeof self) == 3);
  CHECK(recv(filtered, text, sizeof text, 0) == 3 && !memcmp(text, "new", 3), "what the filter drops came through");
  live_ok();
}
