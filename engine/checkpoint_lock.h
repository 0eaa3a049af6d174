// SPDX-License-Identifier: Apache-2.0
// One checkpoint of a container at a time, whoever asks. The lock is a flock(2) on a file of the root
// task in /proc: nothing is left behind, it dies with the engine however that dies, and a pid that was
// given away is another file. Only root and the task's own user can open that file, so nobody else can
// keep a container from being checkpointed.
#pragma once

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/procfs/procfs.h"

namespace stasis {

// kBusy when somebody else has it. A task that is gone is not locked: the preflight tells about it.
Result<Fd> lock_checkpoint(const procfs::Procfs& proc, pid_t root);

}  // namespace stasis
