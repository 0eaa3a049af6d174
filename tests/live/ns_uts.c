// SPDX-License-Identifier: Apache-2.0
// A private uts namespace: host and domain name; uts_namespaces(7). Needs a namespace of its own.
#include "live.h"
#include <sys/utsname.h>

int main(int argc, char **argv) {
  live_init(argc, argv);
  CHECK(sethostname("live-host", 9) == 0 && setdomainname("live.domain", 11) == 0);
  live_ready();
  live_wait();
  struct utsname name;
  CHECK(uname(&name) == 0 && strcmp(name.nodename, "live-host") == 0 && strcmp(name.domainname, "live.domain") == 0, "%s %s",
        name.nodename, name.domainname);
  live_ok();
}
