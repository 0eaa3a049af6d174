// SPDX-License-Identifier: Apache-2.0
// A private, empty network namespace as a runtime makes it: loopback only, up, and not the host's; network_namespaces(7).
#include "live.h"
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static short flags_of(const char *name) {
  struct ifreq request = {};
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0, "%s", name);
  close(fd);
  return request.ifr_flags;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  flags_of("lo");
  live_ready();
  live_wait();
  CHECK(flags_of("lo") & IFF_LOOPBACK);
  struct if_nameindex *interfaces = if_nameindex();
  int count = 0;
  for (struct if_nameindex *i = interfaces; i && i->if_index; i++) {
    CHECK(strncmp(i->if_name, "eth", 3) != 0, "interface %s of the host is here", i->if_name);
    count++;
  }
  CHECK(count >= 1);
  live_ok();
}
