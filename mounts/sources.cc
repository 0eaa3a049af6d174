// SPDX-License-Identifier: Apache-2.0
#include "mounts/sources.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/base/io.h"

namespace stasis::mounts {
namespace {

using From = PlannedMount::From;
constexpr size_t kAtOnce = 200;  // below SCM_MAX_FD

union Control {
  cmsghdr align;
  char bytes[CMSG_SPACE(kAtOnce * sizeof(int))];
};

Result<Fd> open_source(const std::string& path, const std::string& mountpoint) {
  auto fd = open_at(AT_FDCWD, path, O_PATH);
  if (!fd)
    return fail(std::move(fd)
                    .error()
                    .context("source of an external mount")
                    .with_code(Code::kMountTarget)
                    .about(cat("mount ", mountpoint)));
  return fd;
}

}  // namespace

size_t count_sources(const RestorePlan& plan) {
  return 1 + static_cast<size_t>(std::ranges::count(plan.mounts, From::kExternal, &PlannedMount::from));
}

Result<std::vector<Fd>> open_sources(const RestorePlan& plan, const std::string& root_source) {
  std::vector<Fd> sources;
  sources.push_back(TRY(open_source(root_source.empty() ? "/" : root_source, "/")));
  for (const auto& m : plan.mounts)
    if (m.from == From::kExternal) sources.push_back(TRY(open_source(m.host_path, m.mountpoint)));
  return sources;
}

Result<void> send_sources(int socket, const std::vector<Fd>& sources) {
  for (size_t first = 0; first < sources.size(); first += kAtOnce) {
    const size_t count = std::min(kAtOnce, sources.size() - first);
    char byte = 's';
    iovec part{&byte, 1};
    Control control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (size_t i = 0; i < count; ++i) {
      const int fd = sources[first + i].get();
      std::memcpy(CMSG_DATA(rights) + i * sizeof(int), &fd, sizeof fd);
    }
    if (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0) return fail_sys("send mount sources");
  }
  return {};
}

Result<std::vector<Fd>> receive_sources(int socket, size_t count) {
  std::vector<Fd> sources;
  while (sources.size() < count) {
    char byte;
    iovec part{&byte, 1};
    Control control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    ssize_t size;
    do size = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size < 0) return fail_sys("receive mount sources");
    const cmsghdr* rights = CMSG_FIRSTHDR(&message);
    if (size != 1 || !rights || (message.msg_flags & MSG_CTRUNC))
      return fail(Code::kInternal, "the sources of the mounts did not arrive");
    for (size_t i = 0; i < (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(rights) + i * sizeof(int), sizeof fd);
      sources.emplace_back(fd);
    }
  }
  return sources;
}

}  // namespace stasis::mounts
