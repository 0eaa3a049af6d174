// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/wire.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/fd.h"
#include "engine/rpc/responses.h"

namespace stasis::rpc {
namespace {

struct Pair {
  Pair() {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) abort();
    a = Fd(fds[0]);
    b = Fd(fds[1]);
  }
  Fd a, b;
};

TEST(Wire, RecordsKeepTheirBoundaries) {
  Pair pair;
  ASSERT_EQ(::send(pair.a.get(), "one", 3, 0), 3);
  ASSERT_EQ(::send(pair.a.get(), "second", 6, 0), 6);
  EXPECT_EQ(**receive(pair.b.get()), "one");
  EXPECT_EQ(**receive(pair.b.get()), "second");
  pair.a.reset();
  auto end = receive(pair.b.get());
  ASSERT_TRUE(end);
  EXPECT_FALSE(*end);
}

TEST(Wire, OversizeRecordIsTakenOffAndRefused) {
  Pair pair;
  const int room = 4 << 20;
  setsockopt(pair.a.get(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
  const std::string big(kMaxRequest + 1, 'x');
  if (::send(pair.a.get(), big.data(), big.size(), MSG_DONTWAIT) < 0)
    GTEST_SKIP() << "needs CAP_NET_ADMIN for a buffer this large";
  ASSERT_EQ(::send(pair.a.get(), "next", 4, MSG_DONTWAIT), 4);
  auto refused = receive(pair.b.get());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kProtocol);
  EXPECT_EQ(**receive(pair.b.get()), "next");
}

TEST(Wire, SendToAClosedPeerIsAnErrorNotASignal) {
  Pair pair;
  pair.b.reset();
  auto sent = send(pair.a.get(), version_response());
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().sys_errno(), EPIPE);
}

TEST(Wire, PeerIsTheMakerOfThePair) {
  Pair pair;
  EXPECT_EQ(*peer_pid(pair.b.get()), getpid());
  EXPECT_TRUE(check_socket(pair.b.get()));
  EXPECT_FALSE(check_socket(9999));
}

}  // namespace
}  // namespace stasis::rpc
