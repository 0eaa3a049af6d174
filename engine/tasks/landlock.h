// SPDX-License-Identifier: Apache-2.0
// Whether a thread is in a Landlock domain. No file tells, and the rules cannot be read back; but a thread in a domain
// may not look into a process outside of it, security/landlock/task.c, whatever else would allow it. So there are
// processes that everybody with their ids may look into, outside of every domain but the engine's, and each thread of
// the container asks kcmp(2) about the one with its own ids.
#pragma once

#include <map>
#include <string>
#include <tuple>

#include "engine/base/fd.h"
#include "engine/procfs/id_map.h"
#include "engine/tasks/frozen_tree.h"

namespace stasis::tasks {

class LandlockProbes {
 public:
  // One for each pair of ids and label (labels.h) among the threads; Thread::probe is its pid in the container.
  // `own_pids`: the container has a pid namespace of its own. Nothing is done if the kernel has no Landlock.
  static Result<LandlockProbes> start(FrozenTree& tree, bool own_pids, const procfs::UserMaps* users);
  LandlockProbes(LandlockProbes&&) = default;
  LandlockProbes& operator=(LandlockProbes&&) = delete;
  ~LandlockProbes();

 private:
  struct Probe {
    pid_t pid = 0, npid = 0;  // for the engine, and in the container
  };
  LandlockProbes() = default;
  using Who = std::tuple<uint32_t, uint32_t, std::string>;  // user, group, label
  Result<void> add(const procfs::Procfs& proc, const Who& who, int userns_of);
  Fd life_, life_of_probes_;  // a pipe: they end with us
  std::map<Who, Probe> probes_;
};

// The end of an error's text for a thread whose question got this answer; nullptr: it is in no domain.
const char* landlock_obstacle(int64_t answer);

}  // namespace stasis::tasks
