// SPDX-License-Identifier: Apache-2.0
// What /proc/PID/fdinfo/N says of event files, behind its common head.
#pragma once

#include <time.h>

#include "engine/procfs/procfs.h"

namespace stasis::procfs {

// The value of the line "KEY: VALUE", without the spaces around it.
std::optional<std::string_view> field(const FdInfo& info, std::string_view key);
// The same as a number; an error if the line is missing or is none.
Result<uint64_t> number(const FdInfo& info, std::string_view key, int base = 10);

// fs/timerfd.c timerfd_show()
struct TimerInfo {
  uint32_t clock = 0;    // CLOCK_*
  uint64_t ticks = 0;    // expirations not read
  uint32_t settime = 0;  // TFD_TIMER_*
  timespec left{};       // until the next; zero: disarmed or due
  timespec interval{};
};
Result<TimerInfo> parse_timer(const FdInfo& info);

// fs/eventpoll.c ep_show_fdinfo(): one per entry.
struct EpollEntry {
  int number = 0;  // descriptor at the time of EPOLL_CTL_ADD
  uint32_t events = 0;
  uint64_t data = 0;
  uint64_t pos = 0, inode = 0;
  uint32_t dev = 0;
};
Result<std::vector<EpollEntry>> parse_epoll(const FdInfo& info);

}  // namespace stasis::procfs
