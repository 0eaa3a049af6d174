// SPDX-License-Identifier: Apache-2.0
// packet(7) sockets: new, bound to a device or to a protocol only, with options, memberships and a filter, in a fanout group;
// they receive what they did before.
#include "inet.h"
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>

enum { kNew, kBound, kCooked, kFanout, kSockets, kProtocol = 0x88b5 };
static const int kOptions[] = {PACKET_AUXDATA, PACKET_ORIGDEV, PACKET_VERSION, PACKET_RESERVE, PACKET_LOSS, PACKET_VNET_HDR,
                               PACKET_TIMESTAMP, PACKET_FANOUT, PACKET_QDISC_BYPASS, PACKET_IGNORE_OUTGOING};
enum { kNumber = sizeof kOptions / sizeof *kOptions };

static void look(int fd, int *values) {
  for (int i = 0; i < kNumber; i++) {
    socklen_t size = sizeof *values;
    values[i] = -1;
    getsockopt(fd, SOL_PACKET, kOptions[i], &values[i], &size);
  }
}
static void bind_to(int fd, int protocol, int device) {
  struct sockaddr_ll name = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol), .sll_ifindex = device};
  CHECK(bind(fd, (void *)&name, sizeof name) == 0);
}
// A frame to ourselves through the loopback device.
static void post(int fd, char byte) {
  struct {
    struct ethhdr head;
    char data[46];
  } frame = {.head.h_proto = htons(kProtocol), .data = {byte}};
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = 1, .sll_halen = 6, .sll_protocol = htons(kProtocol)};
  CHECK(sendto(fd, &frame, sizeof frame, 0, (void *)&to, sizeof to) == sizeof frame);
}
static int next(int fd, int skip) {
  char bytes[256];
  ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
  return n > skip ? bytes[skip] : 0;
}

// What the devices say of the memberships.
static int listens(void) {
  static char text[1 << 16];
  return strstr(live_read_file("/proc/net/dev_mcast", text, sizeof text), "01005e5a2b3c") != NULL;
}
static int promiscuous(void) {
  char text[64];
  return strtoul(live_read_file("/sys/class/net/lo/flags", text, sizeof text), NULL, 16) & IFF_PROMISC;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  loopback_up();
  int fd[kSockets];
  static struct socket_state state[kSockets];
  int values[kSockets][kNumber];
  for (int i = 0; i < kSockets; i++) CHECK((fd[i] = socket(AF_PACKET, i == kCooked ? SOCK_DGRAM : SOCK_RAW, 0)) >= 0);
  int sender = socket(AF_PACKET, SOCK_RAW, 0);
  struct sock_filter only_a[] = {{BPF_LD | BPF_B | BPF_ABS, 0, 0, 14}, {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 'a'}, {BPF_RET | BPF_K, 0, 0, 0xffff}, {BPF_RET | BPF_K, 0, 0, 0}};
  struct sock_fprog program = {4, only_a};
  CHECK(setsockopt(fd[kBound], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
  set_option(fd[kBound], SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
  set_option(fd[kBound], SOL_PACKET, PACKET_AUXDATA, 1), set_option(fd[kBound], SOL_PACKET, PACKET_RESERVE, 24);
  set_option(fd[kBound], SOL_PACKET, PACKET_VERSION, TPACKET_V3), set_option(fd[kBound], SOL_SOCKET, SO_RCVBUF, 100000);
  struct packet_mreq all = {.mr_ifindex = 1, .mr_type = PACKET_MR_PROMISC};
  struct packet_mreq group = {.mr_ifindex = 1, .mr_type = PACKET_MR_MULTICAST, .mr_alen = 6, .mr_address = {1, 0, 0x5e, 0x5a, 0x2b, 0x3c}};
  CHECK(setsockopt(fd[kBound], SOL_PACKET, PACKET_ADD_MEMBERSHIP, &group, sizeof group) == 0);
  CHECK(setsockopt(fd[kCooked], SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all) == 0);
  set_option(fd[kCooked], SOL_PACKET, PACKET_ORIGDEV, 1), set_option(fd[kCooked], SOL_PACKET, PACKET_TIMESTAMP, 1 << 4);
  set_option(fd[kCooked], SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
  set_option(fd[kNew], SOL_PACKET, PACKET_QDISC_BYPASS, 1), set_option(fd[kNew], SOL_PACKET, PACKET_VNET_HDR, 1);
  set_option(fd[kFanout], SOL_PACKET, PACKET_LOSS, 1);
  bind_to(fd[kBound], kProtocol, 1), bind_to(fd[kCooked], kProtocol, 0), bind_to(fd[kFanout], kProtocol + 1, 1);
  set_option(fd[kFanout], SOL_PACKET, PACKET_FANOUT, getpid() % 60000 | PACKET_FANOUT_LB << 16);
  for (int i = 0; i < kSockets; i++) remember(&state[i], fd[i]), look(fd[i], values[i]);

  live_ready();
  live_wait();

  for (int i = 0; i < kSockets; i++) {
    char what[32];
    snprintf(what, sizeof what, "socket %d", i);
    check_same(&state[i], what);
    int now[kNumber];
    look(fd[i], now);
    for (int k = 0; k < kNumber; k++) CHECK(now[k] == values[i][k], "%s: packet option %d is %#x, was %#x", what, kOptions[k], now[k], values[i][k]);
  }
  struct sock_filter filter[8];
  socklen_t count = 8;
  CHECK(getsockopt(fd[kBound], SOL_SOCKET, 26 /* SO_GET_FILTER */, filter, &count) == 0 && count == 4 && !memcmp(filter, only_a, sizeof only_a));
  post(sender, 'b'), post(sender, 'a');
  CHECK(next(fd[kBound], 14) == 'a' && next(fd[kBound], 14) == 0, "the filter");
  CHECK(next(fd[kCooked], 0) == 'b' && next(fd[kCooked], 0) == 'a');
  CHECK(listens() && promiscuous(), "memberships");
  CHECK(setsockopt(fd[kBound], SOL_PACKET, PACKET_DROP_MEMBERSHIP, &group, sizeof group) == 0 && !listens(), "the multicast address");
  CHECK(setsockopt(fd[kCooked], SOL_PACKET, PACKET_DROP_MEMBERSHIP, &all, sizeof all) == 0 && !promiscuous(), "promiscuous mode");
  CHECK(next(fd[kNew], 0) == 0);
  live_ok();
}
