// SPDX-License-Identifier: Apache-2.0
// A root that asks for a signal at its parent's death, prctl(2): it must not come because an engine came and went. GO
// says "kept" where the parent after the restore is one that stays; a detached root has none.
#include "live.h"

static volatile int fired;
static void handler(int s) { (void)s; fired = 1; }

int main(int argc, char **argv) {
  live_init(argc, argv);
  signal(SIGUSR1, handler);
  CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0);
  live_ready();
  live_wait();
  int now = -1;
  CHECK(!fired, "the signal came");
  CHECK(prctl(PR_GET_PDEATHSIG, &now) == 0 && (now == SIGUSR1 || strcmp(live_argument, "kept")), "signal %d", now);
  live_ok();
}
