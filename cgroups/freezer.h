// SPDX-License-Identifier: Apache-2.0
// One cgroup's freezer, v1 (freezer.state; admin-guide/cgroup-v1/freezer-subsystem.rst) or v2 (cgroup.freeze),
// as a scope that puts back the state it found.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::cgroups {

class Freezer {
 public:
  // `dir` as clients give it (double slashes and all). No freezer there: kFreezer.
  static Result<Freezer> open(const std::string& dir);
  Freezer(Freezer&& other) noexcept;
  Freezer& operator=(Freezer&&) = delete;
  // Puts back the state found at open(), unless forget() was called.
  ~Freezer();

  bool was_frozen() const { return was_frozen_; }
  bool is_v2() const { return v2_; }
  const std::string& dir() const { return name_; }
  // kTimeout when a task does not freeze in time; the state found at open() is back then.
  Result<void> freeze(int timeout_ms);
  // kFreezer when an ancestor keeps it frozen.
  Result<void> thaw();
  // Process ids in this cgroup and all below it, ascending.
  Result<std::vector<pid_t>> processes() const;
  // Thread ids likewise.
  Result<std::vector<pid_t>> threads() const;
  // The state is to stay as it is now.
  void forget() { changed_ = false; }

 private:
  enum class State { kThawed, kFreezing, kFrozen };
  Freezer() = default;
  Result<State> state() const;
  Result<void> order(bool frozen) const;
  Result<void> wait_frozen(int timeout_ms) const;
  void put_back();

  Fd dir_;
  std::string name_;
  bool v2_ = false;
  bool was_frozen_ = false;   // in effect
  bool self_frozen_ = false;  // asked for in this very cgroup, so that thaw() here can undo it
  bool changed_ = false;
};

}  // namespace stasis::cgroups
