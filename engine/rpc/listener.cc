// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/listener.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "engine/base/strings.h"
#include "engine/rpc/wire.h"

namespace stasis::rpc {
namespace {

constexpr int kActivated = 3;  // SD_LISTEN_FDS_START

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path) || path.find('\0') != std::string::npos)
    return fail(Error(Code::kBadOption, cat("the address ", json_quote(path), " is not a path of 1 to ",
                                            sizeof(address.sun_path) - 1, " bytes"))
                    .about("--address"));
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// What a service that was killed left behind. Nobody listening is what connect(2) alone can tell.
Result<void> remove_stale(const sockaddr_un& address) {
  struct stat st {};
  if (lstat(address.sun_path, &st) != 0) return {};
  const auto taken = [&](std::string_view why) {
    return fail(Error(Code::kBadOption, cat("the address ", address.sun_path, " ", why)).about(address.sun_path));
  };
  if (!S_ISSOCK(st.st_mode)) return taken("is a file that is not a socket");
  const Fd probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return fail_sys("socket");
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 || errno != ECONNREFUSED)
    return taken("is in use");
  if (unlink(address.sun_path) != 0) return fail_sys("remove the socket", address.sun_path);
  return {};
}

}  // namespace

Result<std::optional<Listener>> Listener::bind(const std::string& path) {
  const sockaddr_un address = TRY(address_of(path));
  Listener listener(Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)));
  if (!listener.socket_) return fail_sys("socket");
  TRY(remove_stale(address));
  // The file gets the mode of the socket, so that it is never open to others.
  if (fchmod(listener.socket(), 0600) != 0) return fail_sys("fchmod", "the socket");
  if (::bind(listener.socket(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return fail_sys(Code::kBadOption, "make the socket", path);
  struct stat st {};
  if (lstat(address.sun_path, &st) != 0) return fail_sys("look at", path);
  listener.path_ = path, listener.device_ = st.st_dev, listener.inode_ = st.st_ino;
  if (listen(listener.socket(), SOMAXCONN) != 0) return fail_sys("listen", path);
  return std::optional<Listener>(std::move(listener));
}

Result<std::optional<Listener>> Listener::inherited() {
  const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
  const bool ours = pid && count && parse_int<pid_t>(pid) == getpid();
  const int fds = ours ? parse_int<int>(count).value_or(0) : 0;
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) unsetenv(name);
  if (fds < 1) return std::optional<Listener>();
  if (fds > 1) return fail(Code::kUsage, cat(fds, " sockets were passed to the service; it listens on one"));
  TRY(check_socket(kActivated));
  int listening = 0;
  socklen_t size = sizeof(listening);
  if (getsockopt(kActivated, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || !listening)
    return fail(Error(Code::kUsage, "descriptor 3 is not a listening socket").about("fd 3"));
  fcntl(kActivated, F_SETFD, FD_CLOEXEC);
  return std::optional<Listener>(Listener(Fd(kActivated)));
}

Listener::Listener(Listener&& other) noexcept
    : socket_(std::move(other.socket_)),
      path_(std::exchange(other.path_, {})),
      device_(other.device_),
      inode_(other.inode_) {}

Listener& Listener::operator=(Listener&& other) noexcept {
  close();
  socket_ = std::move(other.socket_);
  path_ = std::exchange(other.path_, {});
  device_ = other.device_, inode_ = other.inode_;
  return *this;
}

void Listener::close() {
  socket_.reset();
  struct stat st {};
  if (!path_.empty() && lstat(path_.c_str(), &st) == 0 && st.st_dev == device_ && st.st_ino == inode_)
    (void)unlink(path_.c_str());
  path_.clear();
}

void Listener::forget() {
  path_.clear();
  socket_.reset();
}

}  // namespace stasis::rpc
