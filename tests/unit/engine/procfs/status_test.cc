// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "engine/procfs/procfs.h"

namespace stasis::procfs {
namespace {

TEST(ParseStatus, ATaskReapedWhileItIsRead) {
  // As 6.1 prints it when open(2) has found the task and read(2) does not any more.
  const auto reaped =
      parse_status("Name:\tmv\nState:\tX (dead)\nTgid:\t0\nNgid:\t0\nPid:\t0\nPPid:\t0\nTracerPid:\t0\n");
  ASSERT_FALSE(reaped);
  EXPECT_EQ(reaped.error().code(), Code::kTaskGone);
  EXPECT_EQ(parse_status("Name:\tmv\nState:\tR (running)\n").error().code(), Code::kInternal);
}

}  // namespace
}  // namespace stasis::procfs
