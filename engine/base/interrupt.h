// SPDX-License-Identifier: Apache-2.0
// SIGINT, SIGTERM and SIGHUP as an error at the next stage instead of death in the middle of
// one: the scopes then undo what was done. signal(7), sigtimedwait(2).
#pragma once

#include <signal.h>

#include "engine/base/result.h"

namespace stasis {

// Blocks the three for its lifetime.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  sigset_t before_;
};

// kInterrupted if one of them has arrived; takes it.
Result<void> check_interrupted();

// Waits until `fd` can be read (poll(2): data, its end, or an error). kInterrupted if one of the signals is there
// first.
Result<void> wait_readable(int fd);

}  // namespace stasis
