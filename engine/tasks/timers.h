// SPDX-License-Identifier: Apache-2.0
// POSIX timers, timer_create(2): ids, clocks, notification, time left, overruns, and expirations
// whose signal is still queued.
#pragma once

#include <signal.h>

#include <vector>

#include "engine/base/result.h"
#include "engine/procfs/procfs.h"
#include "engine/tasks/frozen_tree.h"
#include "engine/tasks/restore_core.h"
#include "proto/core.pb.h"
#include "proto/manifest.pb.h"

namespace stasis::tasks {

// The process must be infected. `cores` and `extras`: one per thread, leader first; signals are recorded already.
Result<void> dump_posix_timers(const procfs::Procfs& proc, Process& p, std::vector<pb::core_entry>& cores,
                               std::vector<pb::task_extra>& extras);

Result<void> check_posix_timers(const pb::task_timers_entry& timers, const std::vector<uint32_t>& tids,
                                const std::string& name);

// Makes the timers with their ids, and those with overruns have them. Threads must exist, no signal may be queued.
Result<void> create_posix_timers(Driven& d);
// If `info` tells of a timer that can expire now: lets it, so that the kernel queues the signal by itself. False if
// not.
Result<bool> expire_again(Driven& d, const siginfo_t& info);
// All others start here.
Result<void> arm_posix_timers(Driven& d);

}  // namespace stasis::tasks
