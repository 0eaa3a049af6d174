// SPDX-License-Identifier: Apache-2.0
// The cgroups of a restore as a scope: made and filled by create(), entered by the tasks, removed again
// unless committed. Entering needs no path: it works in a child with other mounts, root and namespaces.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cgroups/plan.h"

namespace stasis::cgroups {

class Ground {
 public:
  // Makes directories and writes properties, as plan.mode says. `hierarchies` must outlive the Ground.
  static Result<Ground> create(RestorePlan plan, const Hierarchies& hierarchies);

  Ground(Ground&& other) noexcept;
  Ground& operator=(Ground&&) = delete;
  // Without commit(): removes the directories made; the tasks must be dead or dying.
  ~Ground();

  // Moves a task (0: the caller, which must have one thread only) into all cgroups of its set. For children of
  // the engine. Set 0, and any set under kIgnore, is a no-op. `born_there`: clone3(2) put it into unified_fd().
  Result<void> enter(uint32_t set, pid_t pid, bool born_there = false) const;
  // The same for a child of a task that is in `parent_set`: only what differs is written.
  Result<void> enter_from(uint32_t parent_set, uint32_t set, pid_t pid) const;
  // For a new cgroup namespace: enter_prefix(), unshare(CLONE_NEWCGROUP), enter_below_prefix().
  // Hierarchies without a prefix are entered at once by enter_prefix(). Whether there is to be a namespace is
  // for the recorded namespace ids to say: one whose root is "/" has no prefix in the images.
  Result<void> enter_prefix(uint32_t set, pid_t pid, bool born_there = false) const;
  Result<void> enter_below_prefix(uint32_t set, pid_t pid) const;
  bool has_prefix(uint32_t set) const;
  // The first directory of the unified hierarchy on the way (the prefix, if there is one), for clone3(2) with
  // CLONE_INTO_CGROUP, which costs nothing where a move by pid waits up to 20 ms for RCU. -1: none, or the
  // engine is there already.
  int unified_fd(uint32_t set) const;

  // After all tasks have entered: what cannot be written while a task passes through a namespace root
  // (v2: a cgroup that distributes controllers may hold no processes).
  Result<void> settle();
  // Last, just before the tasks are let go: freezes what was frozen when dumped. Calls settle().
  Result<void> restore_freezer();
  // What was made here and is to have device programs, opened. Attaching takes bpf(2), which is not this room's.
  Result<std::vector<std::pair<Fd, const PlannedDir*>>> wanting_programs() const;
  // Undoes restore_freezer(), for when something fails after it: tasks in a frozen v1 cgroup do not even die.
  void thaw();
  // The directories stay.
  void commit() { committed_ = true; }

  const RestorePlan& plan() const { return plan_; }
  // "memory:/n" of each directory made, for messages.
  std::vector<std::string> created() const;

 private:
  struct Door {  // of one cgroup
    Fd dir;      // O_DIRECTORY
    Fd procs;    // cgroup.procs, O_WRONLY
    Fd threads;  // v1 "tasks", O_WRONLY
  };
  using Place = std::pair<size_t, std::string>;  // hierarchy, path

  Ground(RestorePlan plan, const Hierarchies& hierarchies) : plan_(std::move(plan)), hierarchies_(&hierarchies) {}
  Result<void> build(size_t dir_index);
  Result<void> make_dir(const PlannedDir& dir);
  Result<void> make_one(size_t hierarchy, const std::string& path);
  Result<void> fill(const PlannedDir& dir);
  Result<void> open_doors();
  Result<void> write_freezer(const PlannedDir& dir, bool frozen) const;
  Result<void> write_pid(size_t hierarchy, const std::string& path, pid_t pid) const;
  Result<const PlannedSet*> set_of(uint32_t id) const;
  void remove_created();
  bool is_created(size_t hierarchy, const std::string& path) const;
  bool wants_properties(const PlannedDir& dir) const;
  // A task goes through this v2 cgroup on its way to one below, to make it the root of its namespace.
  bool is_passage(size_t hierarchy, const std::string& path) const;
  bool below_passage(size_t hierarchy, const std::string& path) const;

  RestorePlan plan_;
  const Hierarchies* hierarchies_;
  std::vector<Place> created_;  // in order of creation
  std::map<Place, Door> doors_;
  std::vector<size_t> deferred_;  // indices of plan_.dirs
  std::vector<size_t> frozen_;    // likewise: what restore_freezer() wrote to
  bool committed_ = false;
};

}  // namespace stasis::cgroups
