// SPDX-License-Identifier: Apache-2.0
#include "engine/files/locks.h"

#include <fcntl.h>
#include <gtest/gtest.h>

namespace stasis::files {
namespace {

TEST(Locks, LinesOfFdinfo) {
  const auto posix = parse_lock("lock:\t1: POSIX  ADVISORY  WRITE 12 00:2f:123 10 19");
  ASSERT_TRUE(posix);
  EXPECT_EQ(posix->entry.flag(), kPosixLock);
  EXPECT_EQ(posix->entry.type(), static_cast<uint32_t>(F_WRLCK));
  EXPECT_EQ(posix->entry.pid(), 12);
  EXPECT_EQ(posix->entry.start(), 10);
  EXPECT_EQ(posix->entry.len(), 10);
  const auto whole = parse_lock("lock:\t1: OFDLCK ADVISORY  READ -1 00:2f:123 5 EOF");
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->entry.flag(), kDescriptionLock);
  EXPECT_EQ(whole->entry.len(), 0);
  EXPECT_EQ(parse_lock("lock:\t2: FLOCK  ADVISORY  WRITE 7 00:2f:123 0 EOF")->entry.flag(), kFlock);
  const auto lease = parse_lock("lock:\t3: LEASE  BREAKING  UNLCK 7 00:2f:123 0 EOF");
  ASSERT_TRUE(lease);
  EXPECT_EQ(lease->entry.flag(), kLease);
  EXPECT_EQ(lease->state, "BREAKING");
  EXPECT_EQ(parse_lock("lock:\t3: DELEG  ACTIVE    READ 7 00:2f:123 0 EOF")->entry.flag(), 0u);
}

TEST(Locks, BadLines) {
  for (const char* line :
       {"", "lock:", "pos:\t0", "lock:\t1: POSIX  ADVISORY  WRITE 12 00:2f:123 10",
        "lock:\t1: POSIX  ADVISORY  WRITE 12 00:2f:123 10 9", "lock:\t1: POSIX  ADVISORY  WRITE x 00:2f:123 0 EOF",
        "lock:\t1: POSIX  ADVISORY  SOME 12 00:2f:123 0 EOF", "lock:\t1: POSIX  ADVISORY  READ 12 00:2f:123 -1 EOF"})
    EXPECT_FALSE(parse_lock(line)) << line;
}

}  // namespace
}  // namespace stasis::files
