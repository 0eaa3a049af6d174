// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "engine/base/interrupt.h"
#include "engine/image/pump.h"
#include "engine/kernel/syscalls.h"

namespace stasis::memory {
namespace {

using kernel::kPageSize;

constexpr uint64_t kSwapped = uint64_t{1} << 62, kFilePage = uint64_t{1} << 61, kPresent = uint64_t{1} << 63,
                   kExclusive = uint64_t{1} << 56;

}  // namespace

bool counts_as_contents(uint64_t word) { return (word & (kPresent | kSwapped)) != 0 && (word & kFilePage) == 0; }

Result<PageFinder> PageFinder::open(const procfs::Procfs& proc, pid_t pid) {
  PageFinder finder;
  finder.pagemap_ = TRY(proc.open_file(pid, "pagemap", O_RDONLY));
  return finder;
}

// False: this kernel does not know the call, or a category.
Result<bool> PageFinder::scan(kernel::ScanArgs args, Runs& runs, Runs& guards) {
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
      append(r.categories & kernel::kPageIsGuard ? guards : runs, {r.start, r.end});
    }
    if (args.walk_end <= at) break;
  }
  return true;
}

Result<Runs> PageFinder::find(uint64_t start, uint64_t end, Runs& guards) {
  kernel::ScanArgs args{};
  args.start = start;
  args.end = end;
  // (PRESENT or SWAPPED) and not PFNZERO and not FILE: inverted categories must be clear.
  args.category_inverted = kernel::kPageIsPfnzero | kernel::kPageIsFile;
  args.category_mask = kernel::kPageIsPfnzero | kernel::kPageIsFile;
  args.category_anyof_mask = kernel::kPageIsPresent | kernel::kPageIsSwapped;
  for (; scan_; guards_ ? guards_ = false : scan_ = false) {
    args.return_mask = args.category_anyof_mask | (guards_ ? kernel::kPageIsGuard : 0);
    Runs runs;
    if (TRY(scan(args, runs, guards))) return runs;
  }
  return find_by_pagemap(start, end);
}

Result<void> PageFinder::find_guards(uint64_t start, uint64_t end, Runs& guards) {
  if (!scan_ || !guards_) return {};
  kernel::ScanArgs args{};
  args.start = start;
  args.end = end;
  args.category_mask = args.return_mask = kernel::kPageIsGuard;
  Runs none;
  guards_ = TRY(scan(args, none, guards));
  return {};
}

Result<Runs> PageFinder::find_by_pagemap(uint64_t start, uint64_t end) {
  Runs runs;
  std::vector<uint64_t> words(8192);
  for (uint64_t at = start; at < end;) {
    const size_t want = std::min<uint64_t>(words.size(), (end - at) / kPageSize);
    const ssize_t n = ::pread(pagemap_.get(), words.data(), want * 8, static_cast<off_t>(at / kPageSize * 8));
    if (n <= 0) return fail_sys("read /proc/PID/pagemap", cat("at ", hex(at)));
    for (size_t i = 0; i < static_cast<size_t>(n) / 8; ++i, at += kPageSize)
      if (counts_as_contents(words[i])) append(runs, {at, at + kPageSize});
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

Result<AddressSpace> find_contents(const procfs::Procfs& proc, pid_t pid, std::vector<Vma> vmas) {
  AddressSpace space{.pid = pid, .vmas = std::move(vmas)};
  auto finder = TRY(PageFinder::open(proc, pid));
  for (const auto& vma : space.vmas) {
    auto& runs = space.contents.emplace_back();
    const auto& e = vma.entry;
    if (!vma.has_contents) {
      if (!is_vdso_group(e)) TRY(finder.find_guards(e.start(), e.end(), space.guards));
      continue;
    }
    // The vDSO's pages are the kernel's own, which no scan shows; they are needed where the vDSO differs.
    runs = e.status() & kVmaVdso ? Runs{{e.start(), e.end()}} : TRY(finder.find(e.start(), e.end(), space.guards));
  }
  return space;
}

namespace {

// What fork(2) leaves alike: the child's mapping is the parent's, or a part of it.
bool may_inherit(const pb::vma_entry& child, const pb::vma_entry& parent) {
  return (child.flags() & (MAP_PRIVATE | MAP_HUGETLB)) == MAP_PRIVATE && child.start() >= parent.start() &&
         child.end() <= parent.end() && child.status() == parent.status() && child.shmid() == parent.shmid() &&
         (!is_file_backed(child) || child.pgoff() == parent.pgoff() + (child.start() - parent.start())) &&
         !is_vdso_group(child);
}

// The same frame, or the same place in swap; other bits tell of the mapping, not of the page.
bool same_page(uint64_t a, uint64_t b) {
  constexpr uint64_t kPlace = (uint64_t{1} << 55) - 1;
  const uint64_t mask = kPresent | kSwapped | kPlace;
  return (a & kPlace) != 0 && (a & (kPresent | kSwapped)) != 0 && (a & mask) == (b & mask);
}

Result<void> compare(int child, int parent, const Run& run, Runs& same) {
  uint64_t mine[4096], theirs[4096];
  for (uint64_t at = run.start; at < run.end;) {
    const size_t bytes = std::min<uint64_t>(sizeof(mine), (run.end - at) / kPageSize * 8);
    const auto offset = static_cast<off_t>(at / kPageSize * 8);
    for (auto [fd, words] : {std::pair{child, mine}, {parent, theirs}})
      if (::pread(fd, words, bytes, offset) != static_cast<ssize_t>(bytes))
        return fail_sys("read /proc/PID/pagemap", cat("at ", hex(at)));
    for (size_t i = 0; i < bytes / 8; ++i, at += kPageSize)
      if (same_page(mine[i], theirs[i])) append(same, {at, at + kPageSize});
  }
  return {};
}

}  // namespace

Result<Runs> find_inherited(const procfs::Procfs& proc, const AddressSpace& child, const AddressSpace& parent) {
  Runs same;
  Fd mine, theirs;
  size_t at = 0;
  for (size_t i = 0; i < child.vmas.size(); ++i) {
    const auto& e = child.vmas[i].entry;
    while (at < parent.vmas.size() && parent.vmas[at].entry.end() <= e.start()) ++at;
    if (at == parent.vmas.size() || child.contents[i].empty() || !may_inherit(e, parent.vmas[at].entry)) continue;
    if (!mine.valid()) {
      mine = TRY(proc.open_file(child.pid, "pagemap", O_RDONLY));
      theirs = TRY(proc.open_file(parent.pid, "pagemap", O_RDONLY));
    }
    for (const auto& run : intersect(child.contents[i], parent.contents[at]))
      TRY(compare(mine.get(), theirs.get(), run, same));
  }
  return same;
}

namespace {

class MemoryReader {
 public:
  MemoryReader(const procfs::Procfs& proc, pid_t pid, bool alone) : proc_(proc), pid_(pid), alone_(alone) {}

  Result<void> read(uint64_t at, void* buffer, size_t size, bool readable) {
    if (readable && !TRY(shares(at, size))) return kernel::vm_read(pid_, at, buffer, size);
    if (!mem_.valid()) mem_ = TRY(proc_.open_file(pid_, "mem", O_RDONLY));
    if (::pread(mem_.get(), buffer, size, static_cast<off_t>(at)) != static_cast<ssize_t>(size))
      return fail_sys("read /proc/PID/mem", cat("pid ", pid_, " at ", hex(at)));
    return {};
  }

 private:
  // process_vm_readv pins what it reads, and since 6.0 the kernel gives a task that shares a page by fork a copy of its
  // own for that (mm/gup.c gup_must_unshare). /proc/PID/mem, slower, pins nothing. It reads PROT_NONE too.
  Result<bool> shares(uint64_t at, size_t size) {
    if (alone_) return false;
    if (!pagemap_.valid()) pagemap_ = TRY(proc_.open_file(pid_, "pagemap", O_RDONLY));
    words_.resize(size / kPageSize);
    const auto bytes = static_cast<ssize_t>(words_.size() * 8);
    if (::pread(pagemap_.get(), words_.data(), words_.size() * 8, static_cast<off_t>(at / kPageSize * 8)) != bytes)
      return fail_sys("read /proc/PID/pagemap", cat("at ", hex(at)));
    return std::ranges::any_of(words_, [](uint64_t word) { return (word & kPresent) && !(word & kExclusive); });
  }

  const procfs::Procfs& proc_;
  pid_t pid_;
  bool alone_;
  Fd mem_, pagemap_;
  std::vector<uint64_t> words_;
};

}  // namespace

Result<PageStats> dump_pages(const procfs::Procfs& proc, const AddressSpace& space, const Runs& elsewhere, bool alone,
                             image::PagemapWriter& pagemap, image::RawFile& pages) {
  PageStats stats;
  MemoryReader reader(proc, space.pid, alone);
  std::vector<Runs> wanted;
  uint64_t bytes = 0;
  for (const auto& contents : space.contents) {
    wanted.push_back(subtract(contents, elsewhere));
    for (const auto& run : wanted.back()) bytes += run.end - run.start;
  }
  constexpr uint64_t kWorthAThread = 8u << 20;
  image::Pump pump(pages, bytes >= kWorthAThread);
  for (size_t i = 0; i < space.vmas.size(); ++i) {
    const auto& vma = space.vmas[i];
    if (vma.has_contents) stats.scanned += (vma.entry.end() - vma.entry.start()) / kPageSize;
    for (const auto& run : wanted[i]) {
      TRY(pagemap.add(run.start, (run.end - run.start) / kPageSize));
      stats.written += (run.end - run.start) / kPageSize;
      for (uint64_t at = run.start; at < run.end;) {
        TRY(check_interrupted());
        const auto space = pump.space();
        const size_t size = std::min<uint64_t>(space.size(), run.end - at);
        TRY(reader.read(at, space.data(), size, vma.readable));
        TRY(pump.append(size));
        at += size;
      }
    }
  }
  TRY(pump.finish());
  return stats;
}

}  // namespace stasis::memory
