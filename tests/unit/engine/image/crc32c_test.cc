// SPDX-License-Identifier: Apache-2.0
#include "engine/image/crc32c.h"

#include <gtest/gtest.h>

#include <string>

namespace stasis::image {
namespace {

// The examples of RFC 3720 B.4.
TEST(Crc32c, KnownValues) {
  EXPECT_EQ(crc32c(0, "123456789", 9), 0xe3069283u);
  EXPECT_EQ(crc32c(0, std::string(32, '\0').data(), 32), 0x8a9136aau);
  EXPECT_EQ(crc32c(0, std::string(32, '\xff').data(), 32), 0x62a8ab43u);
  EXPECT_EQ(crc32c(0, nullptr, 0), 0u);
}

TEST(Crc32c, InstructionAndTableAgreeAtEveryLengthAndOffset) {
  std::string data;
  for (int i = 0; i < 200; ++i) data += static_cast<char>(i * 31 + 7);
  for (size_t start = 0; start < 9; ++start)
    for (size_t size = 0; start + size <= data.size(); ++size)
      ASSERT_EQ(crc32c(1, data.data() + start, size), crc32c_portable(1, data.data() + start, size));
}

TEST(Crc32c, PiecesGiveTheWhole) {
  const std::string data = "stasis checkpoints containers";
  for (size_t cut = 0; cut <= data.size(); ++cut)
    EXPECT_EQ(crc32c(crc32c(0, data.data(), cut), data.data() + cut, data.size() - cut),
              crc32c(0, data.data(), data.size()));
}

}  // namespace
}  // namespace stasis::image
