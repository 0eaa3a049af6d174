// SPDX-License-Identifier: Apache-2.0
// What only a task itself can tell, asked by system calls that it makes: one batch for each thread. Those of the first
// threads of all processes run at the same time.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "engine/base/result.h"
#include "engine/remote/batch.h"
#include "engine/tasks/frozen_tree.h"
#include "engine/tasks/labels.h"
#include "engine/tasks/switches.h"
#include "proto/core.pb.h"
#include "proto/manifest.pb.h"
#include "proto/mm.pb.h"

namespace stasis::tasks {

class ThreadQuestions {
 public:
  ThreadQuestions(remote::Batch& batch, pid_t landlock_probe);
  Result<void> check(const remote::Batch& batch) const;
  // What has been opened for a question, to be closed; -1: nothing.
  int opened(const remote::Batch& batch) const;
  void read(const remote::Batch& batch, pb::core_entry& core, pb::task_extra& extra) const;

 private:
  remote::Batch::Arg altstack_, tid_address_, pdeath_;
  size_t securebits_, slack_;
  std::optional<size_t> landlock_;
  std::optional<NextLabelQuestion> next_label_;
};

class ProcessQuestions {
 public:
  explicit ProcessQuestions(remote::Batch& batch);
  Result<void> read(const remote::Batch& batch, pb::task_core_entry& tc, pb::mm_entry& mm) const;

 private:
  std::vector<remote::Batch::Arg> actions_, timers_, limits_;  // by number of the signal, timer, limit
  remote::Batch::Arg subreaper_;
  size_t dumpable_, thp_, brk_, ldt_;
  BarrierQuestions barriers_;
};

struct Answers {
  Answers(bool of_process, pid_t landlock_probe);
  remote::Batch batch;
  ThreadQuestions thread;
  SwitchQuestions switches;
  std::optional<ProcessQuestions> process;
};

// Of the thread Process::pid of each infected process, and of the process; by that pid. Fails if one is in a Landlock
// domain.
Result<std::map<pid_t, Answers>> ask_all(std::vector<Process>& processes);
// Of another thread.
Result<Answers> ask_thread(Process& process, const Thread& thread);

}  // namespace stasis::tasks
