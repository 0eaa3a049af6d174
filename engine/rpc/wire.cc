// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/wire.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "engine/base/strings.h"

namespace stasis::rpc {
namespace {

ssize_t receive_some(int socket, void* data, size_t size, int flags) {
  ssize_t n;
  do n = recv(socket, data, size, flags);
  while (n < 0 && errno == EINTR);
  return n;
}

}  // namespace

Result<std::optional<std::string>> receive(int socket) {
  // MSG_TRUNC makes recv(2) tell the record's real length, whatever the buffer's is.
  char probe;
  const ssize_t size = receive_some(socket, &probe, sizeof(probe), MSG_PEEK | MSG_TRUNC);
  if (size < 0 && errno == ECONNRESET) return std::optional<std::string>();
  if (size < 0) return fail_sys(Code::kProtocol, "receive a request");
  // A record of no bytes and the end look the same; nobody sends the former.
  if (size == 0) return std::optional<std::string>();
  if (static_cast<size_t>(size) > kMaxRequest) {
    (void)receive_some(socket, &probe, sizeof(probe), MSG_TRUNC);
    return fail(Code::kProtocol, cat("a request of ", size, " bytes is larger than ", kMaxRequest));
  }
  std::string record(static_cast<size_t>(size), '\0');
  const ssize_t got = receive_some(socket, record.data(), record.size(), 0);
  if (got < 0) return fail_sys(Code::kProtocol, "receive a request");
  record.resize(static_cast<size_t>(got));
  return std::optional<std::string>(std::move(record));
}

Result<void> send(int socket, const pb::criu_resp& response, int fd) {
  std::string record;
  if (!response.SerializeToString(&record)) return fail(Code::kInternal, "a response lacks a required field");
  iovec part{record.data(), record.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  }
  ssize_t n;
  do n = sendmsg(socket, &message, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n < 0) return fail_sys(Code::kProtocol, "send to the client");
  return {};
}

Result<pid_t> peer_pid(int socket) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return fail_sys(Code::kProtocol, "ask who the client is");
  return credentials.pid;
}

Result<void> check_socket(int socket) {
  int type = 0;
  socklen_t size = sizeof(type);
  if (getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size) != 0)
    return fail_sys(Code::kProtocol, "use the descriptor as a socket", cat("fd ", socket));
  if (type != SOCK_SEQPACKET)
    return fail(
        Error(Code::kProtocol, cat("fd ", socket, " is not a SOCK_SEQPACKET socket")).about(cat("fd ", socket)));
  return {};
}

}  // namespace stasis::rpc
