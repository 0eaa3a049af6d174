// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <signal.h>

#include "engine/procfs/procfs.h"

namespace stasis::procfs {
namespace {

TEST(ParseTimers, AsLinuxPrintsThem) {
  const auto timers = parse_timers(
      "ID: 500\nsignal: 40/00007ffe12345678\nnotify: signal/tid.6548\nClockID: 1\n"
      "ID: 8\nsignal: 0/0000000000000007\nnotify: none/pid.6548\nClockID: -6\n"
      "ID: 9\nsignal: 41/0\nnotify: thread/pid.6548\nClockID: 0\n");
  ASSERT_TRUE(timers);
  ASSERT_EQ(timers->size(), 3u);
  EXPECT_EQ((*timers)[0].id, 500);
  EXPECT_EQ((*timers)[0].signal, 40);
  EXPECT_EQ((*timers)[0].value, 0x7ffe12345678u);
  EXPECT_EQ((*timers)[0].notify, SIGEV_THREAD_ID);
  EXPECT_EQ((*timers)[0].target, 6548);
  EXPECT_EQ((*timers)[1].notify, SIGEV_NONE);
  EXPECT_EQ((*timers)[1].clock, -6);
  EXPECT_EQ((*timers)[2].notify, SIGEV_THREAD);
}

TEST(ParseTimers, NoneAndNonsense) {
  ASSERT_TRUE(parse_timers(""));
  EXPECT_TRUE(parse_timers("")->empty());
  for (const char* text : {"signal: 1/0\n", "ID: x\n", "ID: 1\nsignal: 5\n", "ID: 1\nnotify: signal.5\n",
                           "ID: 1\nnotify: often/pid.5\n", "ID 1\n"})
    EXPECT_FALSE(parse_timers(text)) << text;
}

TEST(ParseTimerList, SleepsOfEveryClock) {
  const auto timers = parse_timer_list(
      "Timer List Version: v0.10\nHRTIMER_MAX_CLOCK_BASES: 8\nnow at 35439501666525 nsecs\n\ncpu: 0\n clock 0:\n"
      "  .base:       00000000bc8eca79\n  .index:      0\n  .resolution: 1 nsecs\nactive timers:\n"
      " #0: <0000000006ec73c1>, tick_nohz_handler, S:01\n"
      " # expires at 35439504000000-35439504000000 nsecs [in 2333475 to 2333475 nsecs]\n"
      " #1: <000000008917ae7a>, hrtimer_wakeup, S:01\n"
      " # expires at 35439525079764-35439525129764 nsecs [in 23413239 to 23463239 nsecs]\n"
      " clock 5:\nactive timers:\n #0: <000000008917ae7a>, hrtimer_wakeup, S:01\n"
      " # expires at 7-8 nsecs [in -3 to -2 nsecs]\n");
  ASSERT_TRUE(timers);
  ASSERT_EQ(timers->size(), 2u);
  EXPECT_EQ((*timers)[0].clock, 0);
  EXPECT_EQ((*timers)[0].end, 35439525079764u);
  EXPECT_EQ((*timers)[0].left, 23413239);
  EXPECT_EQ((*timers)[1].clock, 1);
  EXPECT_EQ((*timers)[1].left, -3);
  EXPECT_FALSE(parse_timer_list(" clock 9:\n"));
}

}  // namespace
}  // namespace stasis::procfs
