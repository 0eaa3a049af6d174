// SPDX-License-Identifier: Apache-2.0
#include "engine/base/interrupt.h"

#include <cstring>

namespace stasis {
namespace {

sigset_t watched() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  return set;
}

}  // namespace

InterruptGuard::InterruptGuard() {
  const sigset_t set = watched();
  sigprocmask(SIG_BLOCK, &set, &before_);
}
InterruptGuard::~InterruptGuard() { sigprocmask(SIG_SETMASK, &before_, nullptr); }

Result<void> check_interrupted() {
  const sigset_t set = watched();
  const timespec none{};
  const int signal = sigtimedwait(&set, nullptr, &none);
  if (signal < 0) return {};
  return fail(Code::kInterrupted, cat("stopped by SIG", sigabbrev_np(signal)));
}

}  // namespace stasis
