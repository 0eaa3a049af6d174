// SPDX-License-Identifier: Apache-2.0
#include "engine/files/unix_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/files/inet_options.h"

namespace stasis::files {
namespace {

struct Pair {
  explicit Pair(int type) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends), 0);
    near = Fd(ends[0]), far = Fd(ends[1]);
  }
  void send(std::string_view bytes, std::vector<int> rights = {}) const {
    EXPECT_TRUE(
        send_unix({.socket = near.get(), .to = {}, .bytes = bytes, .rights = std::move(rights), .who = {}}, "test"));
  }
  std::vector<UnixMessage> peek(int type) const {
    auto messages = peek_unix_queue(far.get(), type, "test");
    EXPECT_TRUE(messages) << messages.error().message();
    return messages ? *std::move(messages) : std::vector<UnixMessage>();
  }
  Fd near, far;
};

bool same_file(int a, int b) {
  struct stat x {
  }, y{};
  return ::fstat(a, &x) == 0 && ::fstat(b, &y) == 0 && x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

TEST(UnixQueue, ShowsMessagesAndTakesNone) {
  for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    const Pair pair(type);
    const std::string large(100'000, 'x');
    for (const std::string_view text :
         {std::string_view("one"), std::string_view(), std::string_view(large), std::string_view()})
      pair.send(text);
    const auto seen = pair.peek(type);
    ASSERT_EQ(seen.size(), 4u);
    EXPECT_EQ(seen[0].bytes, "one");
    EXPECT_EQ(seen[1].bytes, "");
    EXPECT_EQ(seen[2].bytes, large);
    EXPECT_EQ(seen[3].bytes, "");
    char buffer[10];
    EXPECT_EQ(::recv(pair.far.get(), buffer, sizeof(buffer), 0), 3);
  }
}

TEST(UnixQueue, TheEndOfPacketsIsNoMessage) {
  const Pair pair(SOCK_SEQPACKET);
  pair.send("");
  ::shutdown(pair.near.get(), SHUT_WR);
  EXPECT_EQ(pair.peek(SOCK_SEQPACKET).size(), 1u);
}

TEST(UnixQueue, CutsStreamsWhereDescriptorsAre) {
  const Pair pair(SOCK_STREAM);
  const Fd null(::open("/dev/null", O_RDWR)), zero(::open("/dev/zero", O_RDWR));
  pair.send("begin");
  pair.send("ning");
  pair.send("a", {null.get()});
  pair.send("bb", {zero.get(), null.get()});
  pair.send("end");
  const auto seen = pair.peek(SOCK_STREAM);
  ASSERT_EQ(seen.size(), 4u);
  EXPECT_EQ(seen[0].bytes, "beginning");
  EXPECT_TRUE(seen[0].rights.empty());
  EXPECT_EQ(seen[1].bytes, "a");
  ASSERT_EQ(seen[1].rights.size(), 1u);
  EXPECT_TRUE(same_file(seen[1].rights[0].get(), null.get()));
  EXPECT_EQ(seen[2].bytes, "bb");
  ASSERT_EQ(seen[2].rights.size(), 2u);
  EXPECT_TRUE(same_file(seen[2].rights[0].get(), zero.get()));
  EXPECT_EQ(seen[3].bytes, "end");
  EXPECT_TRUE(seen[3].rights.empty());
  char buffer[5];
  EXPECT_EQ(::recv(pair.far.get(), buffer, sizeof(buffer), 0), 5);
}

TEST(UnixQueue, OptionsAreAsBefore) {
  const Pair pair(SOCK_STREAM);
  pair.send("0123456789");
  EXPECT_TRUE(set_int(pair.far.get(), SOL_SOCKET, SO_PEEK_OFF, 4, "SO_PEEK_OFF"));
  EXPECT_EQ(pair.peek(SOCK_STREAM).size(), 1u);
  EXPECT_EQ(get_int(pair.far.get(), SOL_SOCKET, SO_PEEK_OFF), 4);
  EXPECT_EQ(get_int(pair.far.get(), SOL_SOCKET, SO_PASSCRED), 0);
}

}  // namespace
}  // namespace stasis::files
