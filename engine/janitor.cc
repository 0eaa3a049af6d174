// SPDX-License-Identifier: Apache-2.0
#include "engine/janitor.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace stasis {

Result<Janitor> Janitor::start(std::function<void()> clean_up) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return fail_sys("pipe2");
  Janitor janitor;
  Fd read_end(ends[0]);
  janitor.pipe_ = Fd(ends[1]);
  janitor.pid_ = ::fork();
  if (janitor.pid_ < 0) return fail_sys("fork");
  if (janitor.pid_ > 0) return janitor;
  ::prctl(PR_SET_NAME, "stasis-janitor");
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  ::setsid();  // a signal to the engine's process group is not meant for us
  janitor.pipe_.reset();
  char byte;
  ssize_t n;
  do n = ::read(read_end.get(), &byte, 1);
  while (n < 0 && errno == EINTR);
  if (n != 1) clean_up();
  ::_exit(0);
}

Janitor::Janitor(Janitor&& other) noexcept : pipe_(std::move(other.pipe_)), pid_(std::exchange(other.pid_, 0)) {}

Janitor::~Janitor() {
  if (pid_ <= 0) return;
  const char byte = 'd';
  (void)!::write(pipe_.get(), &byte, 1);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace stasis
