// SPDX-License-Identifier: Apache-2.0
#include "engine/files/eventfd.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/base/fd.h"

namespace stasis::files {
namespace {

TEST(Eventfd, SemaphoreIsFoundOutAndTheCounterStays) {
  for (const uint64_t counter : {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{77}, ~uint64_t{0} - 1})
    for (const int flags : {0, int{EFD_SEMAPHORE}}) {
      const Fd fd(::eventfd(0, flags | EFD_NONBLOCK));
      ASSERT_TRUE(fd);
      if (counter) {
        ASSERT_EQ(::write(fd.get(), &counter, sizeof counter), 8);
      }
      const auto is = is_semaphore(fd.get(), counter);
      ASSERT_TRUE(is) << is.error().message();
      EXPECT_EQ(*is, flags != 0) << counter;
      uint64_t left = 0, sum = 0;
      if (flags && counter > 100) continue;
      while (::read(fd.get(), &left, sizeof left) == 8) sum += left;
      EXPECT_EQ(sum, counter) << flags;
    }
}

}  // namespace
}  // namespace stasis::files
