// SPDX-License-Identifier: Apache-2.0
// The address space of a stub becomes that of the task: everything of the engine is unmapped,
// then the vDSO, the mappings and their pages come in, driven from outside in batches.
#pragma once

#include <cstdint>

#include "engine/base/result.h"
#include "engine/memory/premap.h"
#include "engine/memory/vdso.h"
#include "engine/remote/runner.h"
#include "engine/tasks/snapshot.h"
#include "engine/tasks/stub.h"

namespace stasis::memory {

struct TaskPlan {
  Premap premap;
  VdsoPlan vdso;
};

// Huge pages for everything in the images that has them reserved are free on this host.
Result<void> check_huge_pages(const tasks::Snapshot& snapshot);

// Unmaps everything but `keep`.
Result<void> clear(remote::Runner& runner, const Runs& keep);
using Segments = std::map<uint64_t, namespaces::Segment>;
// Maps, reads, protects, advises, and tells the kernel the rest (PR_SET_MM_MAP). Returns the pages of the task.
Result<uint64_t> rebuild(remote::Runner& runner, const tasks::TaskImage& task, const TaskPlan& plan,
                         const tasks::Pool& pool, const Segments& segments);

}  // namespace stasis::memory
