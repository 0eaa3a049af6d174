// SPDX-License-Identifier: Apache-2.0
// Shared memory that a process outside the container has mapped too: restored, it would be two objects.
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "engine/base/result.h"
#include "engine/memory/vma.h"
#include "engine/procfs/procfs.h"

namespace stasis::memory {

class OutsideCheck {
 public:
  // Remembers the mapping if its object can be shared at all.
  void add(pid_t pid, const Vma& vma);
  // Looks at every process that is not of `tree`. One error per object.
  void look(const procfs::Procfs& proc, const std::set<pid_t>& tree, std::vector<Error>& obstacles) const;

 private:
  using Object = std::pair<std::pair<uint32_t, uint32_t>, uint64_t>;  // device, inode
  std::map<Object, std::pair<pid_t, std::string>> objects_;
};

}  // namespace stasis::memory
