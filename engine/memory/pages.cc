// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "engine/base/interrupt.h"
#include "engine/kernel/syscalls.h"

namespace stasis::memory {
namespace {

using kernel::kPageSize;
constexpr size_t kBuffer = 1u << 20;  // fits the second-level cache together with the target

constexpr uint64_t kSwapped = uint64_t{1} << 62, kFilePage = uint64_t{1} << 61, kPresent = uint64_t{1} << 63;

void add_page(std::vector<Run>& runs, uint64_t at) {
  if (!runs.empty() && runs.back().end == at)
    runs.back().end += kPageSize;
  else
    runs.push_back({at, at + kPageSize});
}

}  // namespace

bool counts_as_contents(uint64_t word) { return (word & (kPresent | kSwapped)) != 0 && (word & kFilePage) == 0; }

Result<PageFinder> PageFinder::open(const procfs::Procfs& proc, pid_t pid) {
  PageFinder finder;
  finder.pagemap_ = TRY(proc.open_file(pid, "pagemap", O_RDONLY));
  return finder;
}

// False: this kernel does not know the call, or a category.
Result<bool> PageFinder::scan(kernel::ScanArgs args, std::vector<Run>& runs, std::vector<Run>& guards) {
  std::vector<kernel::PageRegion> regions(512);
  args.vec = reinterpret_cast<uint64_t>(regions.data());
  args.vec_len = regions.size();
  for (uint64_t at = args.start; at < args.end; at = args.walk_end) {
    args.start = at;
    const long n = kernel::pagemap_scan(pagemap_.get(), args);
    if (n < 0 && (errno == ENOTTY || errno == EINVAL)) return false;
    if (n < 0) return fail_sys("ioctl(PAGEMAP_SCAN)", cat("at ", hex(at)));
    for (long i = 0; i < n; ++i) {
      const auto& r = regions[static_cast<size_t>(i)];
      // Present and swapped stretches are reported apart; one run serves both.
      auto& list = r.categories & kernel::kPageIsGuard ? guards : runs;
      if (!list.empty() && list.back().end == r.start)
        list.back().end = r.end;
      else
        list.push_back({r.start, r.end});
    }
    if (args.walk_end <= at) break;
  }
  return true;
}

Result<std::vector<Run>> PageFinder::find(uint64_t start, uint64_t end, std::vector<Run>& guards) {
  kernel::ScanArgs args{};
  args.start = start;
  args.end = end;
  // (PRESENT or SWAPPED) and not PFNZERO and not FILE: inverted categories must be clear.
  args.category_inverted = kernel::kPageIsPfnzero | kernel::kPageIsFile;
  args.category_mask = kernel::kPageIsPfnzero | kernel::kPageIsFile;
  args.category_anyof_mask = kernel::kPageIsPresent | kernel::kPageIsSwapped;
  for (; scan_; guards_ ? guards_ = false : scan_ = false) {
    args.return_mask = args.category_anyof_mask | (guards_ ? kernel::kPageIsGuard : 0);
    std::vector<Run> runs;
    if (TRY(scan(args, runs, guards))) return runs;
  }
  return find_by_pagemap(start, end);
}

Result<void> PageFinder::find_guards(uint64_t start, uint64_t end, std::vector<Run>& guards) {
  if (!scan_ || !guards_) return {};
  kernel::ScanArgs args{};
  args.start = start;
  args.end = end;
  args.category_mask = args.return_mask = kernel::kPageIsGuard;
  std::vector<Run> none;
  guards_ = TRY(scan(args, none, guards));
  return {};
}

Result<std::vector<Run>> PageFinder::find_by_pagemap(uint64_t start, uint64_t end) {
  std::vector<Run> runs;
  std::vector<uint64_t> words(8192);
  for (uint64_t at = start; at < end;) {
    const size_t want = std::min<uint64_t>(words.size(), (end - at) / kPageSize);
    const ssize_t n = ::pread(pagemap_.get(), words.data(), want * 8, static_cast<off_t>(at / kPageSize * 8));
    if (n <= 0) return fail_sys("read /proc/PID/pagemap", cat("at ", hex(at)));
    for (size_t i = 0; i < static_cast<size_t>(n) / 8; ++i, at += kPageSize)
      if (counts_as_contents(words[i])) add_page(runs, at);
  }
  return runs;
}

Result<uint32_t> lock_future(const procfs::Procfs& proc, pid_t pid, uint64_t arena, const std::vector<Vma>& vmas) {
  uint64_t before = 0;
  for (const auto& vma : vmas)
    if (vma.map.flag("lo")) before += vma.map.size() / 1024;
  // The arena comes on top, and smaps is long.
  if (TRY(proc.status(pid)).locked_kb <= before) return 0;
  for (const auto& map : TRY(proc.smaps(pid)))
    if (map.start <= arena && arena < map.end)
      return !map.flag("lo") ? 0 : map.flag("lf") ? MCL_FUTURE | MCL_ONFAULT : MCL_FUTURE;
  return 0;
}

Result<void> check_protection_keys(remote::Runner& runner, const std::vector<Vma>& vmas) {
  constexpr uint64_t kPage = 0x1000;
  constexpr int kKeys = 16;
  if (vmas.empty() || !vmas.front().map.protection_key) return {};
  // Where nothing is mapped, pkey_mprotect(2) of a key that was given out says ENOMEM, of any other EINVAL.
  if (vmas.front().entry.start() < 2 * kPage)
    return fail(Code::kUnsupportedMemory, "protection keys cannot be asked for: the lowest pages are mapped");
  remote::Batch batch;
  for (int key = 1; key < kKeys; ++key) batch.add(__NR_pkey_mprotect, kPage, kPage, PROT_NONE, key);
  TRY(runner.run(batch));
  for (size_t i = 0; i < batch.size(); ++i)
    if (batch.result(i) == -ENOMEM)
      return fail(Error(Code::kUnsupportedMemory, cat("pid ", runner.pid(), " has the protection key ", i + 1,
                                                      " (pkey_alloc), which cannot be checkpointed yet"))
                      .about(cat("pid ", runner.pid())));
  return {};
}

Result<PageStats> dump_pages(const procfs::Procfs& proc, pid_t pid, const std::vector<Vma>& vmas,
                             image::PagemapWriter& pagemap, image::RawFile& pages) {
  PageStats stats;
  auto finder = TRY(PageFinder::open(proc, pid));
  Fd mem;
  auto buffer = std::make_unique<uint8_t[]>(kBuffer);
  for (const auto& vma : vmas) {
    const auto& e = vma.entry;
    if (!vma.has_contents) {
      if (!is_vdso_group(e)) TRY(finder.find_guards(e.start(), e.end(), stats.guards));
      continue;
    }
    stats.scanned += (e.end() - e.start()) / kPageSize;
    // The vDSO's pages are the kernel's own, which no scan shows; they are needed where the vDSO differs.
    const auto runs = (e.status() & kVmaVdso) ? std::vector<Run>{{e.start(), e.end()}}
                                              : TRY(finder.find(e.start(), e.end(), stats.guards));
    for (const auto& run : runs) {
      TRY(pagemap.add(run.start, (run.end - run.start) / kPageSize));
      stats.written += (run.end - run.start) / kPageSize;
      for (uint64_t at = run.start; at < run.end;) {
        TRY(check_interrupted());
        const size_t size = std::min<uint64_t>(kBuffer, run.end - at);
        if (vma.readable) {
          TRY(kernel::vm_read(pid, at, buffer.get(), size));
        } else {
          // process_vm_readv respects PROT_NONE; a tracer's /proc/PID/mem does not.
          if (!mem) mem = TRY(proc.open_file(pid, "mem", O_RDONLY));
          if (::pread(mem.get(), buffer.get(), size, static_cast<off_t>(at)) != static_cast<ssize_t>(size))
            return fail_sys("read /proc/PID/mem", cat("pid ", pid, " at ", hex(at)));
        }
        TRY(pages.append(buffer.get(), size));
        at += size;
      }
    }
  }
  return stats;
}

}  // namespace stasis::memory
