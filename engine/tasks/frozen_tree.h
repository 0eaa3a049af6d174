// SPDX-License-Identifier: Apache-2.0
// The container's processes, found and stopped: a scope. Its destructor lets every
// thread go on as it was, whatever happened in between, and tolerates dead ones.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cgroups/freezer.h"
#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/kernel/ptrace.h"
#include "engine/options.h"
#include "engine/procfs/procfs.h"
#include "engine/remote/runner.h"

namespace stasis::tasks {

struct Thread {
  pid_t tid = 0;        // in the engine's pid namespace
  pid_t ntid = 0;       // in the container's
  pid_t probe = 0;      // in the container: whom it asks about, engine/tasks/landlock.h; 0: nobody
  bool exited = false;  // a leader that has ended while others live: there is nothing to ask it
  kernel::Regs regs{};
  uint64_t sigmask = 0;
  std::optional<uint64_t> sleep_left_ns;  // of an interrupted call, engine/tasks/sleeps.h
};

struct Process {
  pid_t tgid = 0;    // host pid
  pid_t pid = 0;     // the thread by which the kernel is asked: the leader, or one that lives if that has exited
  pid_t npid = 0;    // pid in the container's pid namespace: what images hold
  pid_t parent = 0;  // host pid; 0 for roots
  pid_t npgid = 0, nsid = 0;
  bool zombie = false;
  int stop_signal = 0;  // group-stopped by this signal, else 0
  Fd pidfd;             // of `pid`
  procfs::Stat stat;
  procfs::Status status;
  std::vector<Thread> threads;  // leader first; empty for zombies
  std::optional<remote::Runner> runner;
};

// Whether it runs 32-bit code; all of its threads do, or none (preflight.h).
bool is_ia32(const Process& p);

// Of the thread `p.pid`; since Linux 6.9 also if that is not the leader.
Result<Fd> open_pidfd(const Process& p);

// Processes of the tree of `root`, parents before children; `root` first, then its tree,
// then extra roots: processes that entered root's pid namespace from outside (runc exec).
// Nothing is stopped. Used by the preflight; freeze() repeats it until nothing new appears.
Result<std::vector<Process>> find_tree(const procfs::Procfs& proc, pid_t root);

class FrozenTree {
 public:
  // Finds and stops the whole tree within the time limit of the options.
  static Result<FrozenTree> freeze(const procfs::Procfs& proc, const Options& options);
  FrozenTree(FrozenTree&& other) noexcept
      : processes_(std::move(other.processes_)),
        pending_(std::move(other.pending_)),
        attached_(std::move(other.attached_)),
        freezer_(std::move(other.freezer_)),
        was_frozen_(other.was_frozen_),
        done_(std::exchange(other.done_, true)) {}
  FrozenTree& operator=(FrozenTree&&) = delete;
  ~FrozenTree();

  std::vector<Process>& processes() { return processes_; }
  const std::vector<Process>& processes() const { return processes_; }
  Process& root() { return processes_.front(); }
  // The freezer cgroup was frozen before we came; nothing if there is no freezer.
  std::optional<bool> was_frozen() const { return was_frozen_; }
  // The pid in the container of a host pid, 0 if it is not in the tree.
  pid_t to_container(pid_t host_pid) const;

  // Kills every process and waits until each is dead.
  Result<void> kill_all();
  // Lets everything run on (or leaves it stopped by SIGSTOP).
  Result<void> resume(bool leave_stopped);

 private:
  FrozenTree() = default;
  Result<bool> seize_new(const procfs::Procfs& proc, std::set<pid_t>& seen, const Options& options);
  Result<void> collect_stops(const procfs::Procfs& proc, int timeout_ms);
  Result<bool> take_stop(pid_t tid, int timeout_ms);
  Result<bool> let_vfork_end(const procfs::Procfs& proc, pid_t tid, int64_t deadline_ms);
  void release();

  std::vector<Process> processes_;
  std::vector<pid_t> pending_;  // tids whose first stop was not collected yet
  std::set<pid_t> attached_;    // every tid we are the tracer of
  std::optional<cgroups::Freezer> freezer_;
  std::optional<bool> was_frozen_;
  bool done_ = false;
};

}  // namespace stasis::tasks
