// SPDX-License-Identifier: Apache-2.0
// Checks of one process that need nothing to be stopped, used before the freeze for all
// obstacles and after it for what has changed since.
#pragma once

#include <vector>

#include "engine/base/result.h"
#include "engine/options.h"
#include "engine/procfs/procfs.h"
#include "engine/tasks/frozen_tree.h"

namespace stasis {

// Memory, file tables, roots that processes share by clone(2), of all of them.
void check_sharing(const std::vector<tasks::Process>& tree, const Options& options, std::vector<Error>& obstacles);
// State, sessions, sharing between threads, timers.
void check_process(const procfs::Procfs& proc, const tasks::Process& process, const std::vector<tasks::Process>& tree,
                   const Options& options, std::vector<Error>& obstacles);

// Semaphores of the container's ipc namespace whose adjustments (semop(2) SEM_UNDO) would be lost.
Result<void> check_semaphores(const std::vector<tasks::Process>& tree, unsigned long owned,
                              std::vector<Error>& obstacles);

}  // namespace stasis
