// SPDX-License-Identifier: Apache-2.0
#include "engine/base/interrupt.h"

#include <poll.h>
#include <sys/signalfd.h>

#include <cerrno>
#include <cstring>

#include "engine/base/fd.h"

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

Result<void> wait_readable(int fd) {
  const sigset_t set = watched();
  const Fd signals(::signalfd(-1, &set, SFD_CLOEXEC));
  if (!signals) return fail_sys("signalfd");
  pollfd items[] = {{fd, POLLIN, 0}, {signals.get(), POLLIN, 0}};
  while (::poll(items, 2, -1) < 0)
    if (errno != EINTR) return fail_sys("poll");
  return items[0].revents ? Result<void>() : check_interrupted();
}

}  // namespace stasis
