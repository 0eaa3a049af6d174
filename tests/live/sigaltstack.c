// SPDX-License-Identifier: Apache-2.0
// The alternate signal stack: set, disabled, and in use (checkpointed while a handler runs on it); sigaltstack(2).
#include "live.h"

static char alternate[65536] __attribute__((aligned(16)));
static volatile int handled;
static int on_alternate(void) {
  char here;
  return &here >= alternate && &here < alternate + sizeof alternate;
}
static void slow(int s) {
  (void)s;
  CHECK(on_alternate());
  stack_t now;
  live_ready();
  live_wait();  // checkpointed here
  CHECK(on_alternate());
  CHECK(sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_ONSTACK) && now.ss_sp == alternate, "flags %#x", now.ss_flags);
  handled = 1;
}
static void quick(int s) {
  (void)s;
  CHECK(on_alternate());
  handled = 2;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate}, now;
  CHECK(sigaltstack(&stack, NULL) == 0);
  struct sigaction action = {.sa_handler = slow, .sa_flags = SA_ONSTACK};
  CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
  action.sa_handler = quick;
  CHECK(sigaction(SIGUSR2, &action, NULL) == 0);
  CHECK(raise(SIGUSR1) == 0 && handled == 1);
  CHECK(sigaltstack(NULL, &now) == 0 && now.ss_sp == alternate && now.ss_size == sizeof alternate && now.ss_flags == 0);
  CHECK(raise(SIGUSR2) == 0 && handled == 2);
  live_ok();
}
