// SPDX-License-Identifier: Apache-2.0
// Labels of a security module, per thread: AppArmor's profiles, Documentation/admin-guide/LSM/apparmor.rst and
// apparmor(7). A thread gives itself another one, as long as it is unconfined, by writing to its own file of /proc.
// Labels of other modules (SELinux, Smack) have to be the engine's own.
#pragma once

#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/options.h"
#include "engine/procfs/procfs.h"
#include "engine/remote/runner.h"
#include "engine/tasks/frozen_tree.h"
#include "engine/tasks/snapshot.h"
#include "proto/core.pb.h"
#include "proto/manifest.pb.h"

namespace stasis::tasks {

// Whether this kernel has AppArmor, and it is switched on.
bool has_apparmor();
// The profile of a thread, without its mode; "" if it is unconfined, or there is no AppArmor.
std::string apparmor_label(const procfs::Procfs& proc, pid_t pid, pid_t tid);
// What "A (enforce)\n" names.
std::string parse_label(std::string_view text);
// The calling process takes it. False, with errno.
bool take_label(const procfs::Procfs& proc, const std::string& label);

void find_label_obstacles(const procfs::Procfs& proc, const Process& p, const Options& options,
                          std::vector<Error>& obstacles);
Result<void> dump_label(const procfs::Procfs& proc, pid_t pid, pid_t tid, pb::creds_entry& creds);

// The profile that a thread has chosen for its next program (aa_change_onexec(2)): the kernel tells it to nobody else,
// so it has to have a /proc, and may read there.
class NextLabelQuestion {
 public:
  explicit NextLabelQuestion(remote::Batch& batch);
  // The descriptor, to be closed; -1: none.
  int opened(const remote::Batch& batch) const;
  std::string read(const remote::Batch& batch) const;  // "" if there is none

 private:
  remote::Batch::Arg text_;
  size_t open_, read_;
};

// Renames (--lsm-profile), and looks whether each label can be had here. What needs not be set is cleared.
Result<void> plan_labels(const procfs::Procfs& proc, const Options& options, Snapshot& snapshot);
// The orders of a driven thread about itself.
class LabelOrders {
 public:
  // `proc_in_task` is the task's descriptor of /proc. Before its limits are restored.
  static Result<LabelOrders> open(const procfs::Procfs& proc, remote::Runner& runner, pid_t tid, int proc_in_task,
                                  const pb::creds_entry& creds, const pb::task_extra* extra);
  // After what the label may forbid, and before no_new_privs, which would forbid the label.
  void add(remote::Batch& batch) const;

 private:
  struct Order {
    int fd;
    std::string text;
  };
  std::vector<Order> orders_;
};

}  // namespace stasis::tasks
