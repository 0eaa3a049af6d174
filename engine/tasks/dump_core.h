// SPDX-License-Identifier: Apache-2.0
// One frozen process to its core-PID.img records (one per thread) and the fields of mm-PID.img
// that are not mappings.
#pragma once

#include <vector>

#include "engine/base/result.h"
#include "engine/procfs/id_map.h"
#include "engine/procfs/procfs.h"
#include "engine/tasks/frozen_tree.h"
#include "engine/tasks/questions.h"
#include "engine/tasks/seccomp.h"
#include "proto/core.pb.h"
#include "proto/manifest.pb.h"
#include "proto/mm.pb.h"

namespace stasis::tasks {

struct DumpedCore {
  std::vector<pb::core_entry> threads;  // leader first; the leader's has `tc`
  std::vector<pb::task_extra> extras;   // one per thread
  pb::mm_entry mm;                      // without vmas and exe_file_id
};

// The process must be infected (process.runner); `answers`: of its thread Process::pid. `users`: of the container's own
// user namespace, or null.
Result<DumpedCore> dump_core(const procfs::Procfs& proc, Process& process, const Answers& answers,
                             SeccompTable& seccomp, const procfs::UserMaps* users);
// A zombie has a state and an exit code, nothing else.
pb::core_entry dump_zombie(const Process& process);

}  // namespace stasis::tasks
