// SPDX-License-Identifier: Apache-2.0
#include "engine/procfs/fdinfo.h"

#include <gtest/gtest.h>

namespace stasis::procfs {
namespace {

FdInfo info(std::string_view rest) {
  return *parse_fdinfo(std::string("pos:\t0\nflags:\t02\nmnt_id:\t17\nino:\t1038\n") + std::string(rest));
}

TEST(Fdinfo, Fields) {
  const auto event = info("eventfd-count:               2a\neventfd-id: 1\neventfd-semaphore: 1\n");
  EXPECT_EQ(*number(event, "eventfd-count", 16), 42u);
  EXPECT_EQ(*field(event, "eventfd-id"), "1");
  EXPECT_FALSE(field(event, "eventfd"));
  EXPECT_FALSE(number(event, "eventfd-count", 10));
}

TEST(Fdinfo, Timer) {
  const auto timer =
      parse_timer(info("clockid: 7\nticks: 3\nsettime flags: 01\nit_value: (49, 406829)\nit_interval: (1, 0)\n"));
  ASSERT_TRUE(timer);
  EXPECT_EQ(timer->clock, 7u);
  EXPECT_EQ(timer->ticks, 3u);
  EXPECT_EQ(timer->settime, 1u);
  EXPECT_EQ(timer->left.tv_sec, 49);
  EXPECT_EQ(timer->left.tv_nsec, 406829);
  EXPECT_EQ(timer->interval.tv_sec, 1);
  EXPECT_FALSE(parse_timer(info("clockid: 7\nticks: 3\nsettime flags: 01\nit_value: (49 406829)\n")));
}

TEST(Fdinfo, Epoll) {
  const auto entries =
      parse_epoll(info("tfd:        3 events: 80000019 data: ffffffffffffffff  pos:0 ino:40e sdev:10\n"
                       "tfd:        4 events:        1 data:             1234  pos:-1 ino:1 sdev:fd00001\n"));
  ASSERT_TRUE(entries);
  ASSERT_EQ(entries->size(), 2u);
  EXPECT_EQ((*entries)[0].number, 3);
  EXPECT_EQ((*entries)[0].events, 0x80000019u);
  EXPECT_EQ((*entries)[0].data, ~uint64_t{0});
  EXPECT_EQ((*entries)[0].inode, 0x40eu);
  EXPECT_EQ((*entries)[1].dev, 0xfd00001u);
  EXPECT_FALSE(parse_epoll(info("tfd: x events: 1 data: 1 pos:0 ino:1 sdev:1\n")));
}

}  // namespace
}  // namespace stasis::procfs
