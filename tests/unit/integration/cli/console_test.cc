// SPDX-License-Identifier: Apache-2.0
#include "integration/cli/console.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "engine/base/fd.h"

namespace stasis::integration::cli {
namespace {

TEST(Console, SendsOneDescriptor) {
  std::string dir = "/tmp/console_test_XXXXXX";
  ASSERT_NE(::mkdtemp(dir.data()), nullptr);
  const std::string path = dir + "/s";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  const Fd sent(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(send_console(path, sent.get()));

  const Fd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  char text[64] = {};
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  iovec part{text, sizeof text};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ASSERT_GT(::recvmsg(peer.get(), &message, MSG_CMSG_CLOEXEC), 0);
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  ASSERT_NE(header, nullptr);
  EXPECT_EQ(header->cmsg_type, SCM_RIGHTS);
  EXPECT_EQ(header->cmsg_len, CMSG_LEN(sizeof(int)));
  int number = -1;
  std::memcpy(&number, CMSG_DATA(header), sizeof number);
  const Fd received(number);
  struct stat a {
  }, b{};
  ASSERT_EQ(::fstat(received.get(), &a), 0);
  ASSERT_EQ(::fstat(sent.get(), &b), 0);
  EXPECT_EQ(a.st_rdev, b.st_rdev);
  std::filesystem::remove_all(dir);
}

TEST(Console, RefusesWhatIsNoSocket) {
  EXPECT_FALSE(send_console("/nonexistent/socket", 0));
  auto sent = send_console("/" + std::string(200, 'x'), 0);
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code(), Code::kBadOption);
}

}  // namespace
}  // namespace stasis::integration::cli
