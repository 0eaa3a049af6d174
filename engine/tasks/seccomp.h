// SPDX-License-Identifier: Apache-2.0
// Seccomp filter chains (seccomp(2), ptrace(2) PTRACE_SECCOMP_GET_FILTER) and seccomp.img.
// Filters form a tree: a chain is a path from a leaf to the first filter installed, and
// `prev` of an entry is the index of the filter that was installed before it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "engine/base/result.h"
#include "engine/remote/batch.h"
#include "proto/core.pb.h"
#include "proto/task.pb.h"

namespace stasis::tasks {

class SeccompTable {
 public:
  // Reads the chain of a thread and returns the index of its newest filter.
  Result<uint32_t> add_chain(pid_t tid);
  const pb::seccomp_entry& entry() const { return entry_; }
  bool empty() const { return entry_.seccomp_filters_size() == 0; }

 private:
  pb::seccomp_entry entry_;
  std::map<std::pair<int64_t, std::string>, uint32_t> known_;  // (prev, program) -> index
};

// Checks indexes, lengths and that chains have no loops.
Result<void> check_seccomp(const pb::seccomp_entry& entry);

// Adds the calls that install the chain ending in `index`, oldest first.
void add_seccomp_filters(remote::Batch& batch, const pb::seccomp_entry& entry, uint32_t index);

}  // namespace stasis::tasks
