// SPDX-License-Identifier: Apache-2.0
#include "engine/files/unix_queue.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/base/strings.h"
#include "engine/files/inet_options.h"
#include "engine/files/unix_place.h"

namespace stasis::files {
namespace {

constexpr int kPeekOff = 42, kPassRights = 83;  // SO_PEEK_OFF, SO_PASSRIGHTS (6.16)
constexpr int kScmPidfd = 4;                    // SCM_PIDFD (6.5)
constexpr size_t kMaxRights = 253;              // SCM_MAX_FD

// Options that say what a look shows; they are the task's own again when the scope ends.
class Look {
 public:
  explicit Look(int socket) : socket_(socket) {
    for (auto& [name, old] : saved_) old = get_int(socket, SOL_SOCKET, name);
    set(SO_PASSCRED, 1);
    if (get_int(socket, SOL_SOCKET, kPassRights) == 0) set(kPassRights, 1);
  }
  ~Look() {
    for (const auto& [name, old] : saved_)
      if (old && get_int(socket_, SOL_SOCKET, name) != old) set(name, *old);
  }
  Look(const Look&) = delete;
  Look& operator=(const Look&) = delete;
  void set(int name, int value) const { (void)::setsockopt(socket_, SOL_SOCKET, name, &value, sizeof(value)); }

 private:
  int socket_;
  std::pair<int, std::optional<int>> saved_[3] = {{kPeekOff, {}}, {SO_PASSCRED, {}}, {kPassRights, {}}};
};

void take_control(msghdr& head, UnixMessage& out) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&head); c; c = CMSG_NXTHDR(&head, c)) {
    if (c->cmsg_level != SOL_SOCKET) continue;
    const size_t size = c->cmsg_len - CMSG_LEN(0);
    if (c->cmsg_type == SCM_RIGHTS || c->cmsg_type == kScmPidfd) {
      for (size_t i = 0; i + sizeof(int) <= size; i += sizeof(int)) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(c) + i, sizeof(fd));
        Fd owned(fd);
        if (c->cmsg_type == SCM_RIGHTS) out.rights.push_back(std::move(owned));
      }
    } else if (c->cmsg_type == SCM_CREDENTIALS && size == sizeof(ucred)) {
      ucred who{};
      std::memcpy(&who, CMSG_DATA(c), sizeof(who));
      out.who = who;
    }
  }
}

// What is at `offset` of the queue (-1: the first message), at most `limit` bytes of it; nullopt: nothing. `whole` gets
// the length of the message.
Result<std::optional<UnixMessage>> look_at(const Look& look, int socket, int offset, size_t limit, size_t* whole,
                                           const std::string& name) {
  UnixMessage out;
  out.bytes.resize(limit);
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxRights * sizeof(int)) + CMSG_SPACE(sizeof(ucred)) + 1024];
  sockaddr_un source{};
  iovec part{out.bytes.data(), limit};
  msghdr head{};
  head.msg_name = &source, head.msg_namelen = sizeof(source);
  head.msg_iov = &part, head.msg_iovlen = 1;
  head.msg_control = control, head.msg_controllen = sizeof(control);
  look.set(kPeekOff, offset);
  const ssize_t n = ::recvmsg(socket, &head, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC | (whole ? MSG_TRUNC : 0));
  if (n < 0 && errno == EAGAIN) return std::optional<UnixMessage>();
  if (n < 0) return fail_sys("recvmsg(MSG_PEEK)", name);
  take_control(head, out);
  if (head.msg_flags & MSG_CTRUNC)
    return fail(Error(Code::kSystem, cat(name, ": the descriptors in its queue cannot all be taken")).about(name));
  // The end of a stream has no sender.
  if (n == 0 && !out.who) return std::optional<UnixMessage>();
  if (whole) *whole = static_cast<size_t>(n);
  out.offset = std::max(offset, 0);
  out.bytes.resize(std::min(limit, static_cast<size_t>(n)));
  if (head.msg_namelen > sizeof(sa_family_t)) {
    out.source.assign(source.sun_path, head.msg_namelen - sizeof(sa_family_t));
    if (out.source[0] != '\0')
      out.source.resize(out.source.find('\0') == std::string::npos ? out.source.size() : out.source.find('\0'));
  }
  if (out.who && out.who->pid == 0) out.who.reset();  // nobody asked for them when it was sent
  return std::optional<UnixMessage>(std::move(out));
}

// How many of the `size` bytes at `offset` come before what was sent with descriptors, which is the end of them. A look
// takes the descriptors however short it is, unless it cannot store what they came with: so the last byte has no room.
Result<size_t> before_rights(const Look& look, int socket, int offset, size_t size, const std::string& name) {
  constexpr size_t kPage = 4096;
  const size_t room = (size + kPage - 1) / kPage * kPage;
  void* at = ::mmap(nullptr, room + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return fail_sys("mmap");
  char* const end = static_cast<char*>(at) + room;
  ssize_t n = -1;
  if (::mprotect(end, kPage, PROT_NONE) == 0) {
    look.set(kPeekOff, offset);
    n = ::recv(socket, end - (size - 1), size, MSG_PEEK | MSG_DONTWAIT);
  }
  const int error = errno;
  ::munmap(at, room + kPage);
  errno = error;
  if (n < 0 && errno != EFAULT) return fail_sys("recv(MSG_PEEK)", name);
  return static_cast<size_t>(std::max<ssize_t>(n, 0));
}

Result<std::vector<UnixMessage>> peek_stream(const Look& look, int socket, const std::string& name) {
  std::vector<UnixMessage> out;
  int queued = 0;
  if (::ioctl(socket, SIOCINQ, &queued) < 0) return fail_sys("ioctl(SIOCINQ)", name);
  const auto total = static_cast<size_t>(queued);
  for (size_t at = 0; at < total;) {
    const auto offset = static_cast<int>(at);
    auto piece = TRY(look_at(look, socket, offset, total - at, nullptr, name));
    if (!piece || piece->bytes.empty())
      return fail(Error(Code::kSystem, cat(name, ": ", at, " of ", total, " bytes can be seen")).about(name));
    if (!piece->rights.empty()) {
      const size_t without = TRY(before_rights(look, socket, offset, piece->bytes.size(), name));
      if (without > 0) {
        UnixMessage before;
        before.bytes = piece->bytes.substr(0, without), before.who = piece->who, before.offset = offset;
        out.push_back(std::move(before));
        piece->bytes.erase(0, without);
        piece->offset += static_cast<int>(without);
        at += without;
      }
    }
    at += piece->bytes.size();
    out.push_back(*std::move(piece));
  }
  return out;
}

Result<std::vector<UnixMessage>> peek_messages(const Look& look, int socket, const std::string& name) {
  std::vector<UnixMessage> out;
  size_t limit = 64 << 10;
  int offset = -1;  // an empty message that somebody has looked at before can be seen as the first only
  while (true) {
    size_t whole = 0;
    auto message = TRY(look_at(look, socket, offset, limit, &whole, name));
    if (!message) return out;
    if (whole > limit) {
      limit = whole;
      continue;
    }
    offset = std::max(offset, 0) + static_cast<int>(whole);
    out.push_back(*std::move(message));
  }
}

}  // namespace

Result<std::vector<UnixMessage>> peek_unix_queue(int socket, int type, const std::string& name) {
  const Look look(socket);
  return type == SOCK_STREAM ? peek_stream(look, socket, name) : peek_messages(look, socket, name);
}

pid_t peek_unix_sender(int socket, const UnixMessage& message) {
  if (message.bytes.empty()) return 0;
  const Look look(socket);
  const auto again = look_at(look, socket, message.offset, 1, nullptr, "socket");
  return again && *again && (*again)->who ? (*again)->who->pid : 0;
}

Result<void> send_unix(const UnixSend& what, const std::string& name) {
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxRights * sizeof(int)) + CMSG_SPACE(sizeof(ucred))] = {};
  iovec part{};
  msghdr head{};
  head.msg_iov = &part, head.msg_iovlen = 1;
  UnixAddress address(what.to);
  if (!what.to.empty()) head.msg_name = address.get(), head.msg_namelen = address.size();
  size_t used = 0;
  auto add = [&](int type, const void* data, size_t size) {
    auto* c = reinterpret_cast<cmsghdr*>(control + used);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = type, c->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(c), data, size);
    used += CMSG_SPACE(size);
  };
  if (!what.rights.empty()) add(SCM_RIGHTS, what.rights.data(), what.rights.size() * sizeof(int));
  if (what.who) add(SCM_CREDENTIALS, &*what.who, sizeof(*what.who));
  if (used) head.msg_control = control, head.msg_controllen = used;
  size_t done = 0;
  do {
    part = {const_cast<char*>(what.bytes.data()) + done, what.bytes.size() - done};
    const ssize_t n = ::sendmsg(what.socket, &head, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) return fail_sys(Code::kRestoreFailed, "fill the queue", name);
    done += static_cast<size_t>(n);
    head.msg_control = nullptr, head.msg_controllen = 0;
  } while (done < what.bytes.size());
  return {};
}

}  // namespace stasis::files
