// SPDX-License-Identifier: Apache-2.0
// The processes of a restored container before they become themselves: copies of the engine
// that set up in plain C++ what belongs to them (namespaces, mounts, files, sessions), then
// park until they are driven from outside. They report through memory shared with the engine
// and one pipe; a stub that fails says why, and the engine kills them all.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <vector>

#include "cgroups/ground.h"
#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/memory/runs.h"
#include "engine/options.h"
#include "engine/tasks/snapshot.h"
#include "engine/tasks/tree_plan.h"

namespace stasis::memory {
struct Premap;
}

namespace stasis::tasks {

// Memory that engine and stubs share, at an address that no restored task uses:
// [runner code][slots][one arena per node].
class SharedArena {
 public:
  // `by_file`: file() can be sent to a process that is no copy of ours.
  static Result<SharedArena> create(uint64_t hole, size_t nodes, bool by_file = false);
  // The same memory in that process.
  static Result<SharedArena> attach(int file, uint64_t hole, size_t nodes);
  int file() const { return file_.get(); }
  SharedArena(SharedArena&&) noexcept;
  SharedArena& operator=(SharedArena&&) = delete;
  ~SharedArena();
  // Size needed for so many nodes.
  static uint64_t size_for(size_t nodes);

  struct Slot {
    int host_pid;
    int settled;  // != 0: it needs nothing more of what it shares with others; a futex(2)
    int failed;   // != 0: code, errno and text are set
    int code, error_number;
    char text[480];
    char object[160];
  };
  Slot& slot(size_t node) const;
  uint64_t code() const { return base_; }
  uint64_t arena(size_t node) const;
  static constexpr size_t kArenaSize = 256 * 1024;
  uint64_t begin() const { return base_; }
  uint64_t end() const { return base_ + size_; }

 private:
  SharedArena(uint64_t base, size_t size) : base_(base), size_(size) {}
  static Result<SharedArena> map(uint64_t hole, size_t nodes, int fd);
  uint64_t base_;
  size_t size_;
  Fd file_;
};

// Descriptors that stubs hold besides those of their task. The numbers are chosen beforehand,
// above every descriptor of the images and of the engine; all are closed at the very end.
struct Pool {
  int base = 0;
  std::map<uint32_t, int> file;      // file id -> number
  std::map<uint32_t, int> pages;     // pages id -> number
  std::map<uint64_t, int> shared;    // number of shared anonymous memory -> number
  int masters = 0, max_masters = 0;  // from this number on: masters of terminals for the keeper
  int proc = 0;                      // /proc of the engine's namespaces
  int end = 0;                       // first number behind them
};
Pool make_pool(const Snapshot& snapshot, int base, int max_masters = 0);

Result<TreePlan> plan_tree(const Snapshot& snapshot, bool outer_session);

struct StubEnv {
  const Snapshot& snapshot;
  const TreePlan& plan;
  const Options& options;
  const SharedArena& shared;
  const cgroups::Ground* ground = nullptr;  // null: cgroups stay as they are
  unsigned long joined = 0;                 // CLONE_NEW* that extra roots join the root in, besides the snapshot's
  bool adopted = false;                     // the root was made by a runtime, in namespaces and cgroups of its making
  // Runs in the root stub, with all namespaces new and nothing set up in them.
  std::function<Result<void>()> set_up_namespaces;
  // Runs in the root stub after that: opens a file of the snapshot.
  std::function<Result<Fd>(const pb::file_entry&)> open_file;
  // Runs in the root stub after that: what connects them.
  std::function<Result<void>()> connect_files;
  // Runs in every task that has its descriptors.
  std::function<Result<void>(const TaskImage&)> files_in_task;
  // Runs in the root stub after all files are open: masters that nobody else holds.
  std::function<std::vector<int>()> spare_masters;
  // Objects that the root stub cannot make for itself in its user namespace; they are empty yet.
  std::map<uint64_t, Fd> shared_objects;
  Pool pool;
  const std::vector<memory::Premap>* premaps = nullptr;  // by task; null: none
  memory::Runs taken;                                    // what they keep off
};

// What files are restored from; `pool` has to live as long.
files::RestoreEnv files_env(const Snapshot& snapshot, const Options& options, const Pool& pool, int proc);
// Sets the functions of the StubEnv that have to do with files.
void give_files(StubEnv& env, files::RestoreEnv& files);

// The stubs as a scope: what is not released is killed and reaped by the destructor.
class Stubs {
 public:
  // Creates the root with `namespaces` (CLONE_NEW*; net and others to be joined are not among
  // them). It waits for go_on().
  static Result<Stubs> create(StubEnv& env, unsigned long namespaces);
  // Takes over a process that runs become_root_stub(), with our ends of its pipes.
  static Result<Stubs> adopt(StubEnv& env, pid_t pid, Fd pidfd, Fd go, Fd report);
  Stubs(Stubs&& other) noexcept;
  Stubs& operator=(Stubs&&) = delete;
  ~Stubs();

  pid_t root() const { return root_; }
  int root_pidfd() const { return root_pidfd_.get(); }
  // Lets the root stub go on to its next stage, and waits until it has finished that.
  // Stages: 1 cgroups and namespaces entered; 2 namespaces and mounts set up; 3 everything
  // else, in all stubs: they are parked.
  Result<void> next_stage();
  // Creates stubs for tasks that are not below the root; after stage 3.
  Result<void> create_extra_roots();

  // Masters of terminals that nobody else holds, out of the root stub; after stage 3.
  Result<std::vector<Fd>> spare_masters() const;

  // Becomes the tracer of all and stops them.
  Result<void> seize_all();
  pid_t host_pid(size_t node) const { return env_->shared.slot(node).host_pid; }
  // The tasks live on their own from here.
  void commit() { committed_ = true; }
  // Not ours to kill any more (ended on purpose).
  void forget(size_t node) { forgotten_.insert(node); }

 private:
  explicit Stubs(StubEnv& env) : env_(&env) {}
  Result<void> wait_bytes(size_t count);
  Error stub_error() const;
  unsigned long seize_flags() const;

  StubEnv* env_;
  pid_t root_ = 0;
  Fd root_pidfd_;
  Fd go_;      // write end: one byte lets the root stub go on; closing it makes it exit
  Fd report_;  // read end: one byte per stage of the root, one per parked stub
  Fd go_read_, report_write_;
  std::set<size_t> forgotten_;
  int stage_ = 0;
  bool committed_ = false;
};

// The root stub's life in a process that was not cloned by Stubs::create(). `env` is the engine's, made again there.
[[noreturn]] void become_root_stub(StubEnv& env, int go, int report, int proc);
// Says, in the first slot, why there will be no root stub, and ends the process.
[[noreturn]] void fail_root_stub(const SharedArena& shared, const Error& error, int report);

}  // namespace stasis::tasks
