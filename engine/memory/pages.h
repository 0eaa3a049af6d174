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
#include "engine/memory/runs.h"
#include "engine/memory/vma.h"
#include "engine/procfs/procfs.h"
#include "engine/remote/runner.h"

namespace stasis::memory {

// Pages of [start, end) that have contents of their own: present or swapped, not of a file's
// page cache, not the zero page. PAGEMAP_SCAN (6.7), else /proc/PID/pagemap.
// Guard pages (6.15) are reported apart.
class PageFinder {
 public:
  static Result<PageFinder> open(const procfs::Procfs& proc, pid_t pid);
  Result<Runs> find(uint64_t start, uint64_t end, Runs& guards);
  // Guard pages alone, for what is shared.
  Result<void> find_guards(uint64_t start, uint64_t end, Runs& guards);

 private:
  Result<bool> scan(kernel::ScanArgs args, Runs& runs, Runs& guards);
  Result<Runs> find_by_pagemap(uint64_t start, uint64_t end);
  Fd pagemap_;
  bool scan_ = true, guards_ = true;
};

// A pagemap entry of the old interface (Documentation/admin-guide/mm/pagemap.rst): does the page count?
bool counts_as_contents(uint64_t pagemap_word);

// A task's mappings, and which of their pages have contents.
struct AddressSpace {
  pid_t pid = 0;
  std::vector<Vma> vmas;
  std::vector<Runs> contents;  // one for each mapping
  Runs guards;
};
Result<AddressSpace> find_contents(const procfs::Procfs& proc, pid_t pid, std::vector<Vma> vmas);

// Pages that `child` has from `parent` by fork(2) and that are the same in memory still: copied when one writes.
// By page frame and swap entry, /proc/PID/pagemap; nothing where the kernel hides these from us.
Result<Runs> find_inherited(const procfs::Procfs& proc, const AddressSpace& child, const AddressSpace& parent);
// Flags of the mlockall(2) that acts on what the task maps: it does on the runner's arena. 0: none.
Result<uint32_t> lock_future(const procfs::Procfs& proc, pid_t pid, uint64_t arena, const std::vector<Vma>& vmas);

struct PageStats {
  uint64_t scanned = 0, written = 0;
};
// Writes all contents but `elsewhere`. `alone`: no other process can have pages in common with this one.
Result<PageStats> dump_pages(const procfs::Procfs& proc, const AddressSpace& space, const Runs& elsewhere, bool alone,
                             image::PagemapWriter& pagemap, image::RawFile& pages);

}  // namespace stasis::memory
