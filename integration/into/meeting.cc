// SPDX-License-Identifier: Apache-2.0
#include "integration/into/meeting.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"
#include "engine/procfs/procfs.h"
#include "integration/into/scaffold.h"

namespace stasis::integration::into {

Result<Meeting> Meeting::listen(pid_t pid) {
  Meeting out;
  out.pid_ = pid;
  out.pidfd_ = TRY(kernel::pidfd_open(pid));
  const procfs::Procfs proc = TRY(procfs::Procfs::open());
  const Fd root = TRY(proc.open_file(pid, "root", O_PATH | O_DIRECTORY));
  // The links in it are the container's.
  const Fd scaffold = TRY(kernel::open_path_in_root(root.get(), kScaffold));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = cat("/proc/self/fd/", scaffold.get(), "/", kSocket);
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  out.socket_ = Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!out.socket_ || ::bind(out.socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(out.socket_.get(), 4) != 0)
    return fail_sys("listen in", kScaffold);
  return out;
}

Result<IntoTask> Meeting::wait(unsigned long joined) const {
  while (true) {
    pollfd items[] = {{socket_.get(), POLLIN, 0}, {pidfd_.get(), POLLIN, 0}};
    if (::poll(items, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return fail_sys("poll");
    }
    if (items[0].revents) {
      Fd peer(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      ucred who{};
      socklen_t size = sizeof who;
      if (!peer || ::getsockopt(peer.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) return fail_sys("accept");
      if (who.pid != pid_) continue;  // somebody else
      IntoTask task;
      task.pid = pid_;
      task.pidfd = TRY(dup_at_least(pidfd_.get()));
      task.socket = std::move(peer);
      task.joined = joined;
      task.scaffold = kScaffold;
      return task;
    }
    if (items[1].revents)
      return fail(Error(Code::kRestoreFailed,
                        "the first process of the runtime's container ended before it could be used; can the program "
                        "of this host be executed in it?")
                      .about(cat("pid ", pid_)));
  }
}

}  // namespace stasis::integration::into
