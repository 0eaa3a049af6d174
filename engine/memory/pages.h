// SPDX-License-Identifier: Apache-2.0
// Pages of a frozen task to pages-N.img. The engine copies them itself (process_vm_readv),
// so that nothing is charged to the container's memory cgroup and no descriptor enters it.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/result.h"
#include "engine/image/pagemap.h"
#include "engine/image/writer.h"
#include "engine/kernel/syscalls.h"
#include "engine/memory/vma.h"
#include "engine/procfs/procfs.h"
#include "engine/remote/runner.h"

namespace stasis::memory {

struct Run {
  uint64_t start = 0, end = 0;
};

// Pages of [start, end) that have contents of their own: present or swapped, not of a file's
// page cache, not the zero page. PAGEMAP_SCAN (6.7), else /proc/PID/pagemap.
// Guard pages (6.15) are reported apart.
class PageFinder {
 public:
  static Result<PageFinder> open(const procfs::Procfs& proc, pid_t pid);
  Result<std::vector<Run>> find(uint64_t start, uint64_t end, std::vector<Run>& guards);
  // Guard pages alone, for what is shared.
  Result<void> find_guards(uint64_t start, uint64_t end, std::vector<Run>& guards);

 private:
  Result<bool> scan(kernel::ScanArgs args, std::vector<Run>& runs, std::vector<Run>& guards);
  Result<std::vector<Run>> find_by_pagemap(uint64_t start, uint64_t end);
  Fd pagemap_;
  bool scan_ = true, guards_ = true;
};

// A pagemap entry of the old interface (Documentation/admin-guide/mm/pagemap.rst): does the page count?
bool counts_as_contents(uint64_t pagemap_word);

// Flags of the mlockall(2) that acts on what the task maps: it does on the runner's arena. 0: none.
Result<uint32_t> lock_future(const procfs::Procfs& proc, pid_t pid, uint64_t arena, const std::vector<Vma>& vmas);

// Refuses keys that pkey_alloc(2) has given out, though no mapping may have one.
Result<void> check_protection_keys(remote::Runner& runner, const std::vector<Vma>& vmas);

struct PageStats {
  uint64_t scanned = 0, written = 0;
  std::vector<Run> guards;
};
// Writes every run of every mapping that has contents.
Result<PageStats> dump_pages(const procfs::Procfs& proc, pid_t pid, const std::vector<Vma>& vmas,
                             image::PagemapWriter& pagemap, image::RawFile& pages);

}  // namespace stasis::memory
