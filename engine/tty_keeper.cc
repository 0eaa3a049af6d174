// SPDX-License-Identifier: Apache-2.0
#include "engine/tty_keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <set>

#include "engine/kernel/syscalls.h"

namespace stasis {
namespace {

// The client may wait for the end of our standard error, and its directories are not ours to keep busy.
void drop_everything_but(const std::set<int>& kept) {
  int from = 0;
  for (int fd : kept) {
    if (fd > from) close_range(static_cast<unsigned>(from), static_cast<unsigned>(fd - 1), 0);
    from = fd + 1;
  }
  close_range(static_cast<unsigned>(from), ~0U, 0);
}

// What is written is read and dropped, as LXC does with a console that nobody watches: a writer must not block.
void serve(const std::vector<Fd>& masters, int root) {
  std::vector<pollfd> items{{root, POLLIN, 0}};
  for (const auto& fd : masters) {
    // A slave that is opened between poll() and read() would make the read wait, and the other terminals with it.
    (void)::fcntl(fd.get(), F_SETFL, O_RDWR | O_NONBLOCK);
    items.push_back({fd.get(), POLLIN, 0});
  }
  while (true) {
    const int ready = ::poll(items.data(), items.size(), 1000);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0 || items[0].revents != 0) return;
    for (size_t i = 1; i < items.size(); ++i) {
      char bytes[4096];
      // Hung up until a task opens the terminal again: not looked at until the next second.
      if (items[i].revents && ::read(items[i].fd, bytes, sizeof(bytes)) <= 0) items[i].fd = -1;
      if (ready == 0) items[i].fd = masters[i - 1].get();
    }
  }
}

[[noreturn]] void keep(const std::vector<Fd>& masters, int root) {
  ::prctl(PR_SET_NAME, "stasis-ttys");
  ::setsid();
  (void)!::chdir("/");
  ::signal(SIGHUP, SIG_IGN);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  std::set<int> kept{root};
  for (const auto& fd : masters) kept.insert(fd.get());
  drop_everything_but(kept);
  serve(masters, root);
  ::_exit(0);
}

}  // namespace

Result<void> keep_terminals(const std::vector<Fd>& masters, pid_t root) {
  const Fd pidfd = TRY(kernel::pidfd_open(root));
  const pid_t between = ::fork();
  if (between < 0) return fail_sys("fork", "keeper of terminals");
  if (between == 0) {
    const pid_t keeper = ::fork();
    if (keeper == 0) keep(masters, pidfd.get());
    ::_exit(keeper < 0);
  }
  int status = 0;
  while (::waitpid(between, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0) return fail(Code::kSystem, "the keeper of terminals could not be started");
  return {};
}

}  // namespace stasis
