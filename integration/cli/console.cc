// SPDX-License-Identifier: Apache-2.0
#include "integration/cli/console.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

#include "engine/base/fd.h"

namespace stasis::integration::cli {

Result<void> send_console(const std::string& socket_path, int master) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path)
    return fail(
        Error(Code::kBadOption, cat("the console socket's path is too long: ", socket_path)).about(socket_path));
  std::memcpy(address.sun_path, socket_path.c_str(), socket_path.size() + 1);
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_sys("socket", socket_path);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_sys("connect to the console socket", socket_path);

  char text[] = "orphan-pts-master";
  iovec part{text, sizeof text - 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &master, sizeof master);
  if (::sendmsg(socket.get(), &message, MSG_NOSIGNAL) < 0) return fail_sys("send the terminal to", socket_path);
  return {};
}

}  // namespace stasis::integration::cli
