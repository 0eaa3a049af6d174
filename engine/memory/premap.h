// SPDX-License-Identifier: Apache-2.0
// Memory that tasks have from their parents by fork(2), copied when one of them writes. To be shared again it has to be
// there when the restored parent forks: a stub maps such mappings at their final place and reads the pages that its
// children need before it makes them. What a task has got that way is kept when the rest of the engine is unmapped.
#pragma once

#include <map>
#include <vector>

#include "engine/base/result.h"
#include "engine/memory/runs.h"
#include "engine/tasks/snapshot.h"
#include "engine/tasks/tree_plan.h"

namespace stasis::memory {

// Fills TaskImage::inherited from the manifest, and TaskImage::sources. Everything else of the snapshot is checked.
Result<void> load_inherited(tasks::Snapshot& s);

struct Premap {
  std::vector<const pb::vma_entry*> own;  // the task's stub maps them before it has children
  Runs fill;                              // and reads these pages, which its children inherit
  Runs from_creator;                      // mappings that it has by fork(2)
  Runs kept;                              // mappings that are there when the task is driven: own, and those
  Runs ready;                             // their pages that are right already
  Runs stale;                             // their pages that belong to others
};
// One for each task. `taken`: address ranges where a stub has something itself; nothing is put near them.
std::vector<Premap> plan_premap(const tasks::Snapshot& s, const tasks::TreePlan& tree, const Runs& taken);

// In the stub: maps `premap.own`, after everything of `held` that is not kept is gone, and fills. `held` becomes kept.
Result<void> premap(const tasks::TaskImage& task, const Premap& premap, const std::map<uint32_t, int>& file,
                    const std::map<uint32_t, int>& pages, Runs& held);

}  // namespace stasis::memory
