// SPDX-License-Identifier: Apache-2.0
// netlink(7) sockets: new, bound, with groups and options; they answer, and tell what happens.
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include "inet.h"

static unsigned port_id(int fd) {
  struct sockaddr_nl name = {};
  socklen_t size = sizeof name;
  CHECK(getsockname(fd, (void*)&name, &size) == 0);
  return name.nl_pid;
}

static void ask(int fd) {  // for the loopback device
  struct {
    struct nlmsghdr head;
    struct ifinfomsg link;
  } request = {{sizeof request, RTM_GETLINK, NLM_F_REQUEST, 7, 0}, {.ifi_index = 1}};
  char answer[8192];
  CHECK(send(fd, &request, sizeof request, 0) == sizeof request);
  CHECK(recv(fd, answer, sizeof answer, 0) > 0 && ((struct nlmsghdr*)answer)->nlmsg_type == RTM_NEWLINK);
}

static unsigned memberships(int fd) {
  unsigned words[8] = {};
  socklen_t size = sizeof words;
  CHECK(getsockopt(fd, SOL_NETLINK, 9, words, &size) == 0);
  return words[0];
}

int main(int argc, char** argv) {
  live_init(argc, argv);
  loopback_up();
  int fresh = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE),
      groups = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_ROUTE);
  int uevent = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT),
      bare = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  struct sockaddr_nl name = {.nl_family = AF_NETLINK, .nl_pid = 0x7000123};
  CHECK(bind(groups, (void*)&name, sizeof name) == 0);
  set_option(groups, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_IPV4_ROUTE), set_option(groups, SOL_NETLINK, 11, 1);
  set_option(groups, SOL_NETLINK, NETLINK_PKTINFO, 1), set_option(groups, SOL_SOCKET, SO_RCVBUF, 50000);
  name.nl_pid = 0;
  CHECK(bind(fresh, (void*)&name, sizeof name) == 0 && bind(uevent, (void*)&name, sizeof name) == 0);
  ask(fresh);
  unsigned ids[] = {port_id(fresh), port_id(groups), port_id(uevent)}, before = memberships(groups);
  CHECK(before == 1u << (RTNLGRP_IPV4_ROUTE - 1) && ids[1] == 0x7000123);
  struct socket_state state[2];
  remember(&state[0], groups), remember(&state[1], uevent);

  live_ready();
  live_wait();

  CHECK(port_id(fresh) == ids[0] && port_id(groups) == ids[1] && port_id(uevent) == ids[2] && port_id(bare) == 0,
        "ports");
  CHECK(memberships(groups) == before, "groups %#x, not %#x", memberships(groups), before);
  check_same(&state[0], "groups"), check_same(&state[1], "uevent");
  int value = 0;
  socklen_t size = sizeof value;
  CHECK(getsockopt(groups, SOL_NETLINK, 11, &value, &size) == 0 && value == 1, "NETLINK_EXT_ACK");
  CHECK(getsockopt(groups, SOL_NETLINK, NETLINK_PKTINFO, &value, &size) == 0 && value == 1, "NETLINK_PKTINFO");
  ask(fresh);
  CHECK(fcntl(groups, F_SETFL, 0) == 0);
  ask(bare);
  live_ok();
}
