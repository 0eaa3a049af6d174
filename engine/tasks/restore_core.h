// SPDX-License-Identifier: Apache-2.0
// What is left of a task when its address space stands: threads, signals, timers, scheduling,
// limits, credentials, seccomp, registers. Every step is one batch in the task or one call
// from outside.
#pragma once

#include <map>
#include <set>
#include <vector>

#include "engine/base/result.h"
#include "engine/procfs/procfs.h"
#include "engine/remote/runner.h"
#include "engine/tasks/labels.h"
#include "engine/tasks/snapshot.h"

namespace stasis::tasks {

// One task that is being driven: stopped, its address space already its own.
struct Driven {
  const TaskImage* image = nullptr;
  remote::Runner runner;
  std::vector<pid_t> tids;          // host tids, in the order of image->threads; leader first
  std::set<uint32_t> armed_timers;  // POSIX timers that run already
  std::map<size_t, int64_t> slept;  // by thread: what its sleep returned when it was begun again
  std::vector<LabelOrders> labels;  // by thread
  bool as_client = false;           // ids are the engine's already (Options::client)
  bool setgroups = true;            // false: denied in its user namespace
};

// Creates the other threads; they are traced and stopped when this returns.
Result<void> create_threads(const procfs::Procfs& proc, Driven& d);
// cwd, root and umask of threads that have their own; `files`: descriptors by file id.
Result<void> restore_thread_dirs(Driven& d, const std::map<uint32_t, int>& files);
// Signal actions, POSIX timers, then what was pending. A signal that children sent while they were set up
// is discarded first.
Result<void> restore_signals(Driven& d);
// prlimit(2), scheduling, affinity, oom_score_adj: from outside.
Result<void> restore_from_outside(const procfs::Procfs& proc, Driven& d);
// For the labels of the threads, while the descriptors of the pool are there: who shares them closes them for all.
Result<void> open_labels(const procfs::Procfs& proc, Driven& d, int proc_in_task);
// Thread-wise state, then, because nothing privileged may follow, seccomp filters and
// credentials and labels; interval timers start here.
Result<void> restore_threads(Driven& d, const pb::seccomp_entry& seccomp);
// Closes the pool and unmaps the arena. After it no batch can run.
Result<void> leave(Driven& d, int pool_base, uint64_t arena_begin, uint64_t arena_end);
// Registers, floating point state and signal masks; the threads stay stopped.
Result<void> restore_registers(Driven& d);

}  // namespace stasis::tasks
