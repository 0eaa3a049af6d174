// SPDX-License-Identifier: Apache-2.0
// TCP connections that nobody has answered yet (SYN_SENT), since a filter of the server's drops what comes: one that an
// epoll waits for, and one whose task sits in connect(2). They go on, with the sequence number that the peer may have seen.
#include "inet.h"
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>

enum { kTcpSavedSyn = 28 };

static int drop_all(int fd) {
  struct sock_filter none = {BPF_RET | BPF_K, 0, 0, 0};
  struct sock_fprog program = {1, &none};
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

// The first number of the SYN that goes from one port to the other.
static uint32_t number_of(int raw, int from, int to) {
  unsigned char packet[2048];
  for (;;) {
    ssize_t n = recv(raw, packet, sizeof packet, 0);
    CHECK(n > 0);
    struct tcphdr *head = (void *)(packet + 4 * (packet[0] & 15));
    if (ntohs(head->source) == from && ntohs(head->dest) == to && head->syn) return ntohl(head->seq);
  }
}

static void greet(struct sockaddr_in *server) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  char byte;
  CHECK(fd >= 0 && connect(fd, (void *)server, sizeof *server) == 0);
  CHECK(send(fd, "b", 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1 && byte == 'B');
  _exit(0);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  loopback_up();
  int server = bound(AF_INET, SOCK_STREAM, 0, 0), raw = socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
  set_option(server, IPPROTO_TCP, TCP_SAVE_SYN, 1);
  CHECK(raw >= 0 && listen(server, 8) == 0 && drop_all(server) == 0);
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  CHECK(getsockname(server, (void *)&address, &size) == 0);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  CHECK(connect(fd, (void *)&address, sizeof address) < 0 && errno == EINPROGRESS);
  uint32_t number = number_of(raw, port_of(fd), port_of(server));
  pid_t child = fork();
  if (child == 0) {
    close(fd), close(raw), close(server);
    greet(&address);
  }
  // Until the child's comes as well.
  for (int other = 0; !other;) {
    unsigned char packet[2048];
    CHECK(recv(raw, packet, sizeof packet, 0) > 0);
    struct tcphdr *head = (void *)(packet + 4 * (packet[0] & 15));
    other = ntohs(head->dest) == port_of(server) && ntohs(head->source) != port_of(fd) && head->syn;
  }
  close(raw);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLOUT | EPOLLET, .data.u32 = 7};
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 && epoll_wait(epoll, &event, 1, 0) == 0);
  int flags = fcntl(fd, F_GETFL), port = port_of(fd);

  live_ready();
  live_wait();

  CHECK(port_of(fd) == port && fcntl(fd, F_GETFL) == flags);
  struct tcp_info info;
  socklen_t info_size = sizeof info;
  CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_size) == 0 && info.tcpi_state == TCP_SYN_SENT, "state %d", info.tcpi_state);
  CHECK(epoll_wait(epoll, &event, 1, 0) == 0, "an event before there is a connection");
  CHECK(waitpid(child, NULL, WNOHANG) == 0, "connect(2) has returned");
  set_option(server, SOL_SOCKET, SO_DETACH_FILTER, 0);
  CHECK(epoll_wait(epoll, &event, 1, 40000) == 1 && event.data.u32 == 7 && event.events == EPOLLOUT, "events %#x", event.events);
  int error = -1;
  socklen_t error_size = sizeof error;
  CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_size) == 0 && error == 0);
  for (int i = 0; i < 2; i++) {
    struct sockaddr_in peer;
    socklen_t peer_size = sizeof peer;
    int taken = accept(server, (void *)&peer, &peer_size);
    CHECK(taken >= 0);
    char byte;
    if (ntohs(peer.sin_port) == port) {
      unsigned char syn[256];
      socklen_t syn_size = sizeof syn;
      CHECK(getsockopt(taken, IPPROTO_TCP, kTcpSavedSyn, syn, &syn_size) == 0 && syn_size >= 40);
      struct tcphdr *head = (void *)(syn + 4 * (syn[0] & 15));
      CHECK(ntohl(head->seq) == number, "the number was %u and is %u", number, ntohl(head->seq));
      CHECK(send(fd, "a", 1, 0) == 1 && recv(taken, &byte, 1, 0) == 1 && byte == 'a');
      CHECK(connect(fd, (void *)&address, sizeof address) == 0 || errno == EISCONN);
    } else {
      CHECK(recv(taken, &byte, 1, 0) == 1 && byte == 'b' && send(taken, "B", 1, 0) == 1);
    }
    close(taken);
  }
  live_reap_ok(child);
  live_ok();
}
