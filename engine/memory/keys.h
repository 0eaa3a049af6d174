// SPDX-License-Identifier: Apache-2.0
// Memory protection keys, pkeys(7): which are given out, which mapping has which. What a thread may do with each is in
// its PKRU register, part of its extended state. The kernel gives a key of its own to what can only be executed
// (arch/x86/mm/pkeys.c): it is not given out, and gets its number again.
#pragma once

#include <vector>

#include "engine/base/result.h"
#include "engine/memory/vma.h"
#include "engine/remote/runner.h"
#include "engine/tasks/frozen_tree.h"
#include "engine/tasks/snapshot.h"
#include "proto/manifest.pb.h"

namespace stasis::memory {

// A thread that denies itself key 0, which the runner's memory has like any other, cannot be driven.
Result<void> check_key_zero(const tasks::Process& process);
// Which keys are given out; those of the mappings are vma_extra (add_extras).
Result<void> dump_keys(remote::Runner& runner, const std::vector<Vma>& vmas, pb::memory_extra& extra);

Result<void> check_keys(const pb::mm_entry& mm, const pb::memory_extra& extra);
bool has_keys(const tasks::TaskImage& task);
// Images whose tasks have keys, on a processor that has none.
Result<void> check_keys_can_be_had(const tasks::Snapshot& snapshot);
// Before anything is mapped: all keys are taken, but the one that the kernel is to take for itself. The driven thread
// may do everything with each.
Result<void> take_keys(remote::Runner& runner, const tasks::TaskImage& task);
// When nothing is to be read or written any more: mappings get theirs, and who is not wanted is free again.
Result<void> give_keys(remote::Runner& runner, const tasks::TaskImage& task);

}  // namespace stasis::memory
