// SPDX-License-Identifier: Apache-2.0
// SOCK_SEQPACKET: [Orders][serialised criu_opts with the keys of inherited descriptors], descriptors beside it.
#include "engine/into_message.h"

#include <sys/socket.h>

#include <cstring>

#include "proto/rpc.pb.h"

namespace stasis::into {
namespace {

constexpr size_t kMaxFds = 253;            // SCM_MAX_FD, include/net/scm.h
constexpr size_t kMaxMessage = 128 << 10;  // below what a socket's buffer takes at once

struct Head {
  char magic[8] = {'s', 't', 'a', 's', 'i', 'n', 't', 'o'};
  Orders orders;
  uint32_t has_log = 0;
  uint32_t sent = 0;  // of the inherited descriptors
};

union Control {
  cmsghdr align;
  char bytes[CMSG_SPACE(kMaxFds * sizeof(int))];
};

}  // namespace

void put_taken(Orders& orders, const memory::Runs& taken) {
  if (taken.size() > Orders::kMaxTaken) return;
  for (const auto& run : taken) {
    orders.taken[orders.taken_count][0] = run.start;
    orders.taken[orders.taken_count++][1] = run.end;
  }
}

memory::Runs get_taken(const Orders& orders) {
  memory::Runs taken;
  for (size_t i = 0; i < orders.taken_count; ++i) taken.push_back({orders.taken[i][0], orders.taken[i][1]});
  return taken;
}

Result<void> send_orders(int socket, const Orders& orders, const int (&fixed)[kFixedFds], int log_fd,
                         const std::vector<InheritFd>& inherit) {
  Head head;
  head.orders = orders;
  head.has_log = log_fd >= 0;
  std::vector<int> fds(fixed, fixed + kFixedFds);
  if (log_fd >= 0) fds.push_back(log_fd);
  pb::criu_opts opts;
  opts.set_images_dir_fd(-1);
  for (const auto& entry : inherit) {
    auto* out = opts.add_inherit_fd();
    out->set_key(entry.key);
    out->set_fd(entry.fd <= 2 ? entry.fd : -1);
    if (entry.fd <= 2) continue;
    fds.push_back(entry.fd);
    ++head.sent;
  }
  if (fds.size() > kMaxFds) return fail(Code::kUnsupported, "too many inherited descriptors");
  std::string body = opts.SerializeAsString();
  if (body.size() + sizeof head > kMaxMessage) return fail(Code::kUnsupported, "too many inherited descriptors");
  iovec parts[] = {{&head, sizeof head}, {body.data(), body.size()}};
  Control control{};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  message.msg_control = control.bytes;
  message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
  if (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0) return fail_sys("send to", "the waiting process");
  return {};
}

Result<Received> receive_orders(int socket) {
  std::string bytes(kMaxMessage, '\0');
  iovec part{bytes.data(), bytes.size()};
  Control control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  ssize_t size;
  do size = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (size < 0 && errno == EINTR);
  if (size < 0) return fail_sys("receive from", "the engine");
  std::vector<Fd> fds;
  for (cmsghdr* item = CMSG_FIRSTHDR(&message); item; item = CMSG_NXTHDR(&message, item)) {
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
    for (size_t i = 0; i < (item->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  }
  Head head, expected;
  const auto bad = [] { return fail(Code::kProtocol, "the engine sent something that is not valid"); };
  if (static_cast<size_t>(size) < sizeof head || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) return bad();
  std::memcpy(&head, bytes.data(), sizeof head);
  if (std::memcmp(head.magic, expected.magic, sizeof head.magic) != 0 || head.has_log > 1 ||
      fds.size() != kFixedFds + head.has_log + head.sent || head.orders.taken_count > Orders::kMaxTaken)
    return bad();
  Received out;
  out.orders = head.orders;
  size_t next = 0;
  for (Fd* fd : {&out.images, &out.arena, &out.go, &out.report, &out.proc}) *fd = std::move(fds[next++]);
  if (head.has_log) out.log = std::move(fds[next++]);
  pb::criu_opts opts;
  if (!opts.ParseFromArray(bytes.data() + sizeof head, static_cast<int>(static_cast<size_t>(size) - sizeof head)))
    return bad();
  for (const auto& entry : opts.inherit_fd()) {
    int fd = entry.fd();
    if (fd < 0) {
      if (next == fds.size()) return bad();
      fd = fds[next].get();
      out.held.push_back(std::move(fds[next++]));
    }
    out.inherit.push_back({entry.key(), fd});
  }
  return out;
}

}  // namespace stasis::into
