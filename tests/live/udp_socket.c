// SPDX-License-Identifier: Apache-2.0
// UDP sockets with empty queues, udp(7): new, bound, with a peer, IPv4 and IPv6; every option is as before, and datagrams
// go from one to the other, only from the peer where there is one.
#include "inet.h"
#include <netinet/udp.h>

enum { kNew, kServer, kPeer, kServer6, kPeer6, kBroadcast, kShut, kSockets };
static struct socket_state state[kSockets];

static void join(int client, int server) {
  struct sockaddr_storage name;
  socklen_t size = sizeof name;
  CHECK(getsockname(server, (void *)&name, &size) == 0 && connect(client, (void *)&name, size) == 0);
}

// There and back.
static void talk(int client, int server) {
  char text[16] = "";
  struct sockaddr_storage from;
  socklen_t size = sizeof from;
  CHECK(send(client, "ask", 3, 0) == 3);
  CHECK(recvfrom(server, text, sizeof text, 0, (void *)&from, &size) == 3 && !memcmp(text, "ask", 3));
  CHECK(sendto(server, "answer", 6, 0, (void *)&from, size) == 6);
  CHECK(recv(client, text, sizeof text, 0) == 6 && !memcmp(text, "answer", 6));
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  loopback_up();
  int fd[kSockets];
  fd[kNew] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  fd[kServer] = bound(AF_INET, SOCK_DGRAM, 0, 0);
  set_option(fd[kServer], IPPROTO_IP, IP_PKTINFO, 1);
  set_option(fd[kServer], IPPROTO_IP, IP_RECVTTL, 1);
  set_option(fd[kServer], SOL_SOCKET, SO_RCVBUF, 50000);
  set_option(fd[kServer], SOL_SOCKET, SO_TIMESTAMPNS, 1);
  fd[kPeer] = socket(AF_INET, SOCK_DGRAM, 0);
  set_option(fd[kPeer], IPPROTO_IP, IP_TTL, 9);
  set_option(fd[kPeer], IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
  join(fd[kPeer], fd[kServer]);
  fd[kServer6] = bound(AF_INET6, SOCK_DGRAM, 0, 0);
  set_option(fd[kServer6], IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
  fd[kPeer6] = socket(AF_INET6, SOCK_DGRAM, 0);
  set_option(fd[kPeer6], IPPROTO_IPV6, IPV6_TCLASS, 0x20);
  join(fd[kPeer6], fd[kServer6]);
  fd[kBroadcast] = bound(AF_INET, SOCK_DGRAM, 1, 0);
  set_option(fd[kBroadcast], SOL_SOCKET, SO_BROADCAST, 1);
  set_option(fd[kBroadcast], SOL_SOCKET, SO_REUSEADDR, 1);
  set_option(fd[kBroadcast], IPPROTO_UDP, UDP_GRO, 1);
  fd[kShut] = bound(AF_INET, SOCK_DGRAM, 0, 0);
  join(fd[kShut], fd[kServer]);
  CHECK(shutdown(fd[kShut], SHUT_RD) == 0);
  for (int i = 0; i < kSockets; i++) remember(&state[i], fd[i]);

  live_ready();
  live_wait();

  for (int i = 0; i < kSockets; i++) {
    char what[32];
    snprintf(what, sizeof what, "socket %d", i);
    check_same(&state[i], what);
  }
  talk(fd[kPeer], fd[kServer]);
  talk(fd[kPeer6], fd[kServer6]);
  char byte;
  CHECK(recv(fd[kShut], &byte, 1, 0) == 0, "the socket is not shut down");
  // Of a stranger the connected one takes nothing.
  struct sockaddr_storage name;
  socklen_t size = sizeof name;
  CHECK(getsockname(fd[kPeer], (void *)&name, &size) == 0);
  CHECK(sendto(fd[kNew], "x", 1, 0, (void *)&name, size) == 1);
  CHECK(recv(fd[kPeer], &byte, 1, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == ECONNREFUSED), "a stranger's datagram arrived");
  CHECK(getsockname(fd[kBroadcast], (void *)&name, &size) == 0);
  ((struct sockaddr_in *)&name)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(sendto(fd[kNew], "y", 1, 0, (void *)&name, size) == 1 && recv(fd[kBroadcast], &byte, 1, 0) == 1 && byte == 'y');
  live_ok();
}
