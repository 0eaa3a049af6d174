// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/timers.h"

#include <gtest/gtest.h>

#include <functional>

namespace stasis::tasks {
namespace {

pb::posix_timer_entry good() {
  pb::posix_timer_entry e;
  e.set_it_id(3), e.set_clock_id(1), e.set_si_signo(40), e.set_it_sigev_notify(SIGEV_SIGNAL), e.set_sival_ptr(7);
  e.set_overrun(0), e.set_isec(1), e.set_insec(0), e.set_vsec(2), e.set_vnsec(999'999'999);
  return e;
}

bool passes(const std::vector<pb::posix_timer_entry>& entries) {
  pb::task_timers_entry timers;
  for (const auto& e : entries) *timers.add_posix() = e;
  const auto result = check_posix_timers(timers, {10, 11}, "core-10.img");
  if (!result) {
    EXPECT_EQ(result.error().code(), Code::kImageCorrupt);
  }
  return result.has_value();
}

TEST(CheckPosixTimers, GoodOnes) {
  EXPECT_TRUE(passes({}));
  auto own = good(), silent = good(), told = good();
  own.set_it_id(4), own.set_clock_id(static_cast<uint32_t>(-2));
  silent.set_it_id(0), silent.set_it_sigev_notify(SIGEV_NONE), silent.set_si_signo(0);
  told.set_it_id(5), told.set_it_sigev_notify(SIGEV_THREAD_ID), told.set_notify_thread_id(11);
  EXPECT_TRUE(passes({good(), own, silent, told}));
}

TEST(CheckPosixTimers, HostileOnes) {
  EXPECT_FALSE(passes({good(), good()}));
  const std::function<void(pb::posix_timer_entry&)> wrong[] = {
      [](auto& e) { e.set_it_id(0x80000000u); },
      [](auto& e) { e.set_si_signo(65); },
      [](auto& e) { e.set_si_signo(0); },
      [](auto& e) { e.set_it_sigev_notify(3); },
      [](auto& e) { e.set_it_sigev_notify(SIGEV_THREAD_ID), e.set_notify_thread_id(12); },
      [](auto& e) { e.set_clock_id(static_cast<uint32_t>(-5)); },  // of a descriptor
      [](auto& e) { e.set_insec(1'000'000'000); },
      [](auto& e) { e.set_vnsec(1'000'000'000); },
      [](auto& e) { e.set_vsec(~uint64_t{0}); },
      [](auto& e) { e.set_overrun(0x80000000u); },
  };
  for (size_t i = 0; i < std::size(wrong); ++i) {
    auto e = good();
    wrong[i](e);
    EXPECT_FALSE(passes({e})) << i;
  }
}

}  // namespace
}  // namespace stasis::tasks
