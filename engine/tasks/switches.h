// SPDX-License-Identifier: Apache-2.0
// What a task has switched for itself by prctl(2), arch_prctl(2), sched_setattr(2) or in /proc, and CRIU's images have
// no place for.
#pragma once

#include <vector>

#include "engine/base/result.h"
#include "engine/procfs/procfs.h"
#include "engine/remote/runner.h"
#include "engine/tasks/frozen_tree.h"
#include "proto/manifest.pb.h"

namespace stasis::tasks {

// Those that cannot be carried.
void find_switch_obstacles(const procfs::Procfs& proc, const Process& p, std::vector<Error>& obstacles);

// Of one thread: calls in a batch, which is run between the two functions; of the leader those of the process too.
class SwitchQuestions {
 public:
  explicit SwitchQuestions(remote::Batch& batch);
  Result<void> read(const remote::Batch& batch, const procfs::Procfs& proc, const Process& p, const Thread& t,
                    pb::task_extra& extra) const;

  static constexpr int kFeatures = 3;  // of PR_GET_SPECULATION_CTRL: store bypass, indirect branch, flushing of L1D

 private:
  remote::Batch::Arg tsc_;
  size_t got_tsc_, mce_, cpuid_, flusher_, mdwe_, merge_;
  size_t speculation_[kFeatures];
};

// membarrier(2) registrations of a process, MEMBARRIER_CMD_REGISTER_* bits.
class BarrierQuestions {
 public:
  explicit BarrierQuestions(remote::Batch& batch);
  uint32_t read(const remote::Batch& batch) const;

 private:
  size_t all_, single_[3];
};
void add_barriers(remote::Batch& batch, uint32_t registrations);
void add_switches(remote::Batch& batch, const pb::task_extra& extra, bool leader);
// From outside, when the task is complete.
Result<void> restore_outer_switches(const procfs::Procfs& proc, pid_t tid, const pb::task_extra& extra, bool leader);

}  // namespace stasis::tasks
