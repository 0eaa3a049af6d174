// SPDX-License-Identifier: Apache-2.0
// Control groups: the runner writes into GO what /proc/self/cgroup must hold, one "controllers:path" a line;
// parent and child compare. A child forked right after restore shows that nobody joins late; cgroups(7).
#include "live.h"

static void compare(void) {
  char now[8192], *save, *save_want;
  static char want[sizeof live_argument];
  live_read_file("/proc/self/cgroup", now, sizeof now);
  strcpy(want, live_argument);
  int found = 0, wanted = 0;
  for (char *w = strtok_r(want, "\n", &save_want); w; w = strtok_r(NULL, "\n", &save_want)) {
    wanted++;
    static char copy[sizeof now];
    strcpy(copy, now);
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
      const char *colon = strchr(line, ':');
      if (colon && strcmp(colon + 1, w) == 0) found++;
    }
  }
  CHECK(wanted > 0 && found == wanted, "wanted\n%s\nbut it is\n%s", live_argument, now);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    live_wait();
    compare();
    _exit(0);
  }
  live_ready();
  live_wait();
  compare();
  pid_t later = fork();
  CHECK(later >= 0);
  if (later == 0) {
    compare();
    _exit(0);
  }
  live_reap_ok(later);
  live_reap_ok(child);
  live_ok();
}
