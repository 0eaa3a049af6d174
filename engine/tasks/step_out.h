// SPDX-License-Identifier: Apache-2.0
// A thread that was stopped in the middle of a function of the vDSO has read data of this kernel's there; on another
// kernel it could not go on from the next instruction. So it finishes the function first.
#pragma once

#include "engine/base/result.h"
#include "engine/memory/vma.h"
#include "engine/tasks/frozen_tree.h"

namespace stasis::tasks {

// Single-steps every thread of the frozen process out of its vDSO, and reads its registers again.
Result<void> step_out_of_vdso(Process& process, const std::vector<memory::Vma>& vmas);

}  // namespace stasis::tasks
