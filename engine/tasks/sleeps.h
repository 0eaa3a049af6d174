// SPDX-License-Identifier: Apache-2.0
// System calls with a relative time limit that were interrupted. The kernel keeps their end in a restart block, which
// no interface shows and no other task can be given. On dump the end is found from outside; on restore the task itself
// begins the call again with the time that is left, and is interrupted in it: it then has such a block of its own.
#pragma once

#include <vector>

#include "engine/base/result.h"
#include "engine/procfs/procfs.h"
#include "engine/tasks/frozen_tree.h"
#include "engine/tasks/restore_core.h"

namespace stasis::tasks {

// Sets Thread::sleep_left_ns where it can be told, and the number of the system call where restart_syscall(2) hides it.
Result<void> measure_sleeps(const procfs::Procfs& proc, std::vector<Process>& processes);

Result<void> begin_sleeps(Driven& d);

}  // namespace stasis::tasks
