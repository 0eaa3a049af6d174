// SPDX-License-Identifier: Apache-2.0
// Restore into a container that a runtime made: its first process, which runs wait_to_become_root(), is the root
// stub. Namespaces, mounts and control groups are the runtime's; the engine fills them and drives the stubs as ever.
#pragma once

#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/options.h"
#include "engine/procfs/procfs.h"
#include "engine/tasks/snapshot.h"
#include "engine/tasks/stub.h"
#include "mounts/runtime_mounts.h"

namespace stasis::into {

// What of the runtime's making has to be filled; empty when options.into is.
struct Ground {
  unsigned long namespaces = 0;  // CLONE_NEW* whose own state is restored
  std::vector<mounts::Refill> refills;
};

// Images that can be read and planned at all; touches nothing, needs no container.
Result<void> check_images(int images_dir);
// Do the images fit into the container of options.into? Touches nothing.
Result<Ground> look(const procfs::Procfs& proc, const tasks::Snapshot& snapshot, const tasks::TreePlan& tree,
                    const mounts::RestorePlan& plan, const Options& options);
// Sends the waiting process what it needs to become the root stub.
// Whether so many ranges can be told to the runtime's process; memory that its children share keeps off them.
bool can_keep_off(const memory::Runs& ranges);
Result<tasks::Stubs> hand_over(tasks::StubEnv& env);
Result<void> fill(const tasks::Snapshot& snapshot, const Ground& ground, const Options& options);
// Takes the scaffold out of the container's mount namespace.
Result<void> take_down(const Options& options);

// The waiting process: connects to the engine, and returns only if that fails.
Error wait_to_become_root(const std::string& socket_path);

}  // namespace stasis::into
