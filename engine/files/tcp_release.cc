// SPDX-License-Identifier: Apache-2.0
#include "engine/files/tcp_release.h"

#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#include "engine/files/inet_options.h"
#include "engine/kernel/syscalls.h"

namespace stasis::files {
namespace {

bool is_stream(const pb::file_entry& file) {
  return file.has_isk() && file.isk().type() == SOCK_STREAM && has_peer(file.isk().state());
}

// Says nothing to anybody before it is let go. Tasks that wait in connect(2) enter it again, and wait there.
Result<void> begin(int fd, Address& to) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return fail_sys("fcntl(F_SETFL)", to.text());
  const int error = ::connect(fd, to.get(), to.size) < 0 ? errno : 0;
  if (::fcntl(fd, F_SETFL, flags) < 0) return fail_sys("fcntl(F_SETFL)", to.text());
  if (error == 0 || error == EINPROGRESS) return {};
  errno = error;
  return fail_sys(Code::kRestoreFailed, "connect", cat("TCP ", to.text()));
}

}  // namespace

Result<HeldConnections> HeldConnections::take(int root_pidfd, const RestoreEnv& env) {
  HeldConnections out;
  if (env.options.tcp_close) return out;
  for (const auto& [id, file] : env.files) {
    const auto number = env.numbers.find(id);
    if (!is_stream(file) || number == env.numbers.end()) continue;
    const auto& opts = file.isk().opts();
    auto& held = out.held_.emplace_back(TRY(kernel::pidfd_getfd(root_pidfd, number->second)), opts.reuseaddr(),
                                        filter_from(opts));
    if (file.isk().state() == kSynSent) held.to = TRY(peer_from(file.isk(), held.socket.get()));
  }
  return out;
}

Result<void> HeldConnections::release() {
  for (auto& [socket, reuse, filter, to] : held_) {
    const int fd = socket.get();
    if (to) {
      TRY(begin(fd, *to));
      continue;
    }
    TRY(set_filter(fd, filter));
    TRY(set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE, "TCP_REPAIR_QUEUE"));
    // Asks the peer for an answer, which gets what was not acknowledged going; it forgets SO_REUSEADDR.
    TRY(set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF, "TCP_REPAIR"));
    TRY(set_int(fd, SOL_SOCKET, SO_REUSEADDR, reuse, "SO_REUSEADDR"));
    if (get_int(fd, IPPROTO_TCP, TCP_CORK).value_or(0)) continue;
    // Sends what was never sent, also where the peer has closed its half and is not asked.
    const int nodelay = get_int(fd, IPPROTO_TCP, TCP_NODELAY).value_or(0);
    TRY(set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY"));
    TRY(set_int(fd, IPPROTO_TCP, TCP_NODELAY, nodelay, "TCP_NODELAY"));
  }
  return {};
}

Result<void> check_streams(const image::Reader& images, const std::map<uint32_t, pb::file_entry>& files) {
  std::set<uint32_t> inodes;
  for (const auto& [id, file] : files) {
    if (!is_stream(file) && !(file.has_isk() && images.exists(stream_image(file.isk())))) continue;
    if (!inodes.insert(file.isk().ino()).second)
      return fail(Error(Code::kImageCorrupt, cat("files.img: socket inode ", file.isk().ino(), " occurs twice"))
                      .about("files.img"));
    TRY(load_stream(images, file.isk()));
  }
  return {};
}

}  // namespace stasis::files
