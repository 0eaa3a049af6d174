// SPDX-License-Identifier: Apache-2.0
#include "integration/engine_link.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/base/spawn.h"
#include "engine/base/strings.h"

namespace stasis::integration {
namespace {

constexpr size_t kMaxResponse = 1 << 20;

Fd descriptor_of(msghdr& message) {
  Fd out;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    int fd;
    for (size_t at = 0; CMSG_LEN(at + sizeof(fd)) <= part->cmsg_len; at += sizeof(fd)) {
      memcpy(&fd, CMSG_DATA(part) + at, sizeof(fd));
      Fd owned(fd);
      if (!out) out = std::move(owned);
    }
  }
  return out;
}

}  // namespace

Result<EngineLink> EngineLink::start(const std::string& path, std::span<const int> passed, bool stdio) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return fail_sys("socketpair");
  Fd ours(ends[0]);
  const Fd theirs(ends[1]);
  SpawnSetup setup;
  if (!stdio)
    for (int fd : {0, 1})
      posix_spawn_file_actions_addopen(&setup.actions, fd, "/dev/null", fd ? O_WRONLY : O_RDONLY, 0);
  // Above every number that is given out, so that no copy overwrites the source of another.
  const int first_free = kSocket + 1 + static_cast<int>(passed.size());
  std::vector<Fd> copies;
  for (size_t i = 0; i <= passed.size(); ++i) {
    copies.emplace_back(fcntl(i == 0 ? theirs.get() : passed[i - 1], F_DUPFD_CLOEXEC, first_free));
    if (!copies.back()) return fail_sys("pass to the engine", cat("fd ", i == 0 ? theirs.get() : passed[i - 1]));
    posix_spawn_file_actions_adddup2(&setup.actions, copies.back().get(), kSocket + static_cast<int>(i));
  }
  posix_spawn_file_actions_addclosefrom_np(&setup.actions, first_free);
  std::string words[] = {path, "swrk", cat(kSocket)};
  char* argv[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  pid_t pid = -1;
  if (const int err = posix_spawnp(&pid, path.c_str(), &setup.actions, &setup.attributes, argv, environ); err != 0) {
    errno = err;
    return fail(Error::sys(Code::kEngineFailed, "execute the engine", path).about(path));
  }
  return EngineLink(path, std::move(ours), pid);
}

EngineLink::EngineLink(EngineLink&& other) noexcept
    : path_(std::move(other.path_)), socket_(std::move(other.socket_)), pid_(std::exchange(other.pid_, -1)) {}

EngineLink::~EngineLink() { (void)finish(); }

Result<void> EngineLink::send(const pb::criu_req& request) {
  std::string record;
  if (!request.SerializeToString(&record)) return fail(Code::kInternal, "a request lacks a required field");
  ssize_t n;
  do n = ::send(socket_.get(), record.data(), record.size(), MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n < 0) return fail(Error::sys(Code::kEngineFailed, "send a request to the engine", path_).about(path_));
  return {};
}

Result<EngineLink::Received> EngineLink::receive() {
  std::string record(kMaxResponse, '\0');
  iovec part{record.data(), record.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part, message.msg_iovlen = 1;
  message.msg_control = control, message.msg_controllen = sizeof(control);
  ssize_t n;
  do n = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0) return fail(Error::sys(Code::kEngineFailed, "receive an answer of the engine", path_).about(path_));
  Received out{{}, descriptor_of(message)};
  if (n == 0) {
    const std::string status = finish();
    return fail(
        Error(Code::kEngineFailed, cat("the engine ended without an answer", status.empty() ? "" : ", ", status))
            .about(path_));
  }
  if ((message.msg_flags & MSG_TRUNC) || !out.response.ParseFromArray(record.data(), static_cast<int>(n)))
    return fail(Error(Code::kEngineFailed, cat("a record of ", n, " bytes is no answer of an engine")).about(path_));
  return out;
}

std::string EngineLink::finish() {
  socket_.reset();
  if (pid_ <= 0) return {};
  int status = 0;
  pid_t done;
  do done = waitpid(pid_, &status, 0);
  while (done < 0 && errno == EINTR);
  pid_ = -1;
  if (done < 0 || status == 0) return {};
  return WIFSIGNALED(status) ? cat("signal ", WTERMSIG(status)) : cat("exit status ", WEXITSTATUS(status));
}

}  // namespace stasis::integration
