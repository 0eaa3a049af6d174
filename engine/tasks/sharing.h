// SPDX-License-Identifier: Apache-2.0
// Processes that share their file table (clone(2) CLONE_FILES), or their root, cwd and umask (CLONE_FS). Such a thing
// is shared from birth on, so who shares has to be born by one who has it; nobody can join later.
#pragma once

#include <map>
#include <vector>

#include "engine/base/result.h"
#include "engine/kernel/syscalls.h"
#include "engine/tasks/frozen_tree.h"
#include "engine/tasks/tree_plan.h"

namespace stasis::tasks {

// Of processes that have the same as one before them: its pid by theirs.
using Shared = std::map<pid_t, pid_t>;
Shared find_shared(const std::vector<Process>& processes, kernel::Kcmp what);

// What a task has, by numbers that are equal for those who share; 0: nothing, or nobody else can have it.
struct Kinship {
  uint32_t files = 0, fs = 0;
};
// Says in the plan who is born with a share of its creator's. `tasks` is in the order of the plan's input.
Result<void> plan_sharing(TreePlan& plan, const std::vector<Kinship>& tasks);

// Whether a tree can be born again with what it shares.
Result<void> check_sharing(const std::vector<Process>& processes, const Shared& files, const Shared& fs,
                           bool shell_job);

}  // namespace stasis::tasks
