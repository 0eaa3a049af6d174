// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/restore_memory.h"

#include <fcntl.h>
#include <linux/rseq.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"
#include "engine/memory/vma.h"

#define ARCH_MAP_VDSO_64_CODE 0x2003  // arch/x86/include/uapi/asm/prctl.h ARCH_MAP_VDSO_64

namespace stasis::memory {
namespace {

using remote::Batch;

constexpr size_t kBatchCalls = 512;
constexpr int kMadvGuardInstall = 102;      // 6.13, include/uapi/asm-generic/mman-common.h
constexpr size_t kVectors = 256;            // per preadv
constexpr uint64_t kReadBytes = 64u << 20;  // per preadv, far below what read(2) caps

bool is_group(const procfs::Map& map) { return map.name == "[vdso]" || map.name.starts_with("[vvar"); }

Result<void> flush(remote::Runner& runner, Batch& batch) {
  TRY(runner.run_checked(batch));
  batch = Batch();
  return {};
}

// The runs are in ascending order.
bool has_pages(const tasks::TaskImage& task, const pb::vma_entry& e) {
  const auto& runs = task.pagemap.runs;
  const auto at = std::lower_bound(runs.begin(), runs.end(), e.start(), [](const image::PageRun& run, uint64_t start) {
    return run.vaddr + run.nr_pages * kernel::kPageSize <= start;
  });
  return at != runs.end() && at->vaddr < e.end();
}

Result<void> map_all(remote::Runner& runner, const tasks::TaskImage& task, const tasks::Pool& pool) {
  Batch batch;
  uint64_t vdso = 0;
  for (const auto& e : task.mm.vmas())
    if (is_vdso_group(e) && (vdso == 0 || e.start() < vdso)) vdso = e.start();
  if (vdso) {
    batch.add(__NR_arch_prctl, ARCH_MAP_VDSO_64_CODE, vdso);
    batch.must("arch_prctl(ARCH_MAP_VDSO_64)");
  }
  for (const auto& e : task.mm.vmas()) {
    if (is_vdso_group(e) || (e.status() & kVmaVsyscall)) continue;
    int flags = static_cast<int>(e.flags()) & (MAP_SHARED | MAP_PRIVATE | MAP_GROWSDOWN | MAP_NORESERVE);
    if (e.flags() & kMapDroppable) flags = static_cast<int>(kMapDroppable);
    int fd = -1;
    if (is_file_backed(e)) {
      fd = pool.file.at(static_cast<uint32_t>(e.shmid()));
    } else if (is_shared_anonymous(e)) {
      fd = pool.shared.at(e.shmid());
    } else {
      flags |= MAP_ANONYMOUS | static_cast<int>(huge_flags(huge_size(e.flags())));
    }
    if (is_sysv(e)) flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;  // keeps the place for attach_segments()
    batch.add(__NR_mmap, e.start(), e.end() - e.start(), fill_protection(e, has_pages(task, e)),
              flags | MAP_FIXED_NOREPLACE, fd, fd >= 0 ? e.pgoff() : 0);
    batch.must(cat("mmap ", hex(e.start())));
    if (batch.size() >= kBatchCalls) TRY(flush(runner, batch));
  }
  return flush(runner, batch);
}

// Segments are attached by shmat(2) alone, as a whole, anywhere; what is mapped of them is then moved to its place.
Result<void> attach_segments(remote::Runner& runner, const tasks::TaskImage& task, const Segments& segments) {
  for (const auto& e : task.mm.vmas()) {
    if (!is_sysv(e)) continue;
    const auto& segment = segments.at(e.shmid());
    const uint64_t page = segment.huge_page ? segment.huge_page : kernel::kPageSize;
    const uint64_t whole = (segment.size + page - 1) / page * page, size = e.end() - e.start();
    const bool writes = e.has_fdflags() ? (e.fdflags() & O_ACCMODE) == O_RDWR : (e.prot() & PROT_WRITE) != 0;
    Batch attach;
    const size_t call = attach.add(__NR_shmat, e.shmid(), 0, writes ? 0 : SHM_RDONLY);
    attach.must(cat("shmat of segment ", e.shmid()));
    TRY(runner.run_checked(attach));
    const auto at = static_cast<uint64_t>(attach.result(call));
    Batch place;
    place.add(__NR_mremap, at + e.pgoff(), size, size, MREMAP_MAYMOVE | MREMAP_FIXED, e.start());
    place.must(cat("mremap ", hex(e.start())));
    if (e.pgoff()) place.add(__NR_munmap, at, e.pgoff());
    if (const uint64_t end = e.pgoff() + size; end < whole) place.add(__NR_munmap, at + end, whole - end);
    place.add(__NR_mprotect, e.start(), size, e.prot());
    place.must(cat("mprotect ", hex(e.start())));
    TRY(runner.run_checked(place));
  }
  return {};
}

bool inside_vdso(const tasks::TaskImage& task, uint64_t address) {
  for (const auto& e : task.mm.vmas())
    if (is_vdso_group(e) && address >= e.start() && address < e.end()) return true;
  return false;
}

// Pages lie in the file in the order of the runs: neighbours there are read in one call.
Result<uint64_t> read_all_pages(remote::Runner& runner, const tasks::TaskImage& task, const tasks::Pool& pool) {
  const int fd = pool.pages.at(static_cast<uint32_t>(task.pagemap.pages_id));
  std::vector<iovec> vectors;
  uint64_t offset = 0, bytes = 0, pages = 0;
  auto read = [&]() -> Result<void> {
    if (vectors.empty()) return {};
    Batch batch;
    const auto list = batch.data(vectors.data(), vectors.size() * sizeof(iovec));
    const size_t call = batch.add(__NR_preadv, fd, list, vectors.size(), offset, 0);
    batch.must("preadv of pages");
    TRY(runner.run_checked(batch));
    if (static_cast<uint64_t>(batch.result(call)) != bytes)
      return fail(Error(Code::kImageCorrupt, cat("pages-", task.pagemap.pages_id, ".img: read ", batch.result(call),
                                                 " of ", bytes, " bytes"))
                      .about(cat("pages-", task.pagemap.pages_id, ".img")));
    offset += bytes;
    vectors.clear();
    bytes = 0;
    return {};
  };
  for (const auto& run : task.pagemap.runs) {
    if (inside_vdso(task, run.vaddr)) continue;
    uint64_t at = run.vaddr, left = run.nr_pages * kernel::kPageSize, from = run.file_offset;
    pages += run.nr_pages;
    while (left > 0) {
      if (!vectors.empty() && (offset + bytes != from || vectors.size() == kVectors || bytes >= kReadBytes))
        TRY(read());
      if (vectors.empty()) offset = from;
      const uint64_t size = std::min(left, kReadBytes);
      vectors.push_back({reinterpret_cast<void*>(at), size});
      at += size, from += size, bytes += size, left -= size;
    }
  }
  TRY(read());
  return pages;
}

Result<void> protect(remote::Runner& runner, const tasks::TaskImage& task) {
  Batch batch;
  for (const auto& e : task.mm.vmas()) {
    if (is_vdso_group(e) || (e.status() & kVmaVsyscall)) continue;
    const uint64_t size = e.end() - e.start();
    if (fill_protection(e, has_pages(task, e)) != static_cast<int>(e.prot())) {
      batch.add(__NR_mprotect, e.start(), size, e.prot());
      batch.must(cat("mprotect ", hex(e.start())));
    }
    for (int advice = 0; advice < 64; ++advice)
      if (e.madv() >> advice & 1) {
        batch.add(__NR_madvise, e.start(), size, advice);
        batch.must(cat("madvise ", hex(e.start())));
      }
    if (batch.size() >= kBatchCalls) TRY(flush(runner, batch));
  }
  return flush(runner, batch);
}

Result<void> guard(remote::Runner& runner, const pb::memory_extra& extra) {
  Batch batch;
  for (const auto& range : extra.guards()) {
    batch.add(__NR_madvise, range.start(), range.end() - range.start(), kMadvGuardInstall);
    batch.must(cat("madvise(MADV_GUARD_INSTALL) ", hex(range.start())));
    if (batch.size() >= kBatchCalls) TRY(flush(runner, batch));
  }
  return flush(runner, batch);
}

Result<void> name(remote::Runner& runner, const tasks::TaskImage& task) {
  std::map<uint64_t, uint64_t> ends;
  for (const auto& e : task.mm.vmas()) ends[e.start()] = e.end();
  for (const auto& vma : task.memory->vmas()) {
    if (!vma.has_name()) continue;
    Batch batch;
    const size_t call = batch.add(__NR_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, vma.start(),
                                  ends.at(vma.start()) - vma.start(), batch.text(vma.name()));
    TRY(runner.run(batch));
    // Only for people's eyes, and a kernel may be without (CONFIG_ANON_VMA_NAME).
    if (batch.failed(call)) log::warning("memory at ", hex(vma.start()), " cannot be named ", vma.name(), ", ignoring");
  }
  return {};
}

// After guard pages: what is locked takes none. What cannot be brought in (no access, guard pages, behind the end of a
// file) makes mlock(2) say ENOMEM when the mapping is locked already.
Result<void> lock(remote::Runner& runner, const tasks::TaskImage& task) {
  std::set<uint64_t> on_fault;
  if (task.memory)
    for (const auto& vma : task.memory->vmas())
      if (vma.lock_on_fault()) on_fault.insert(vma.start());
  const bool guarded = task.memory && task.memory->guards_size() > 0;
  Batch batch;
  for (const auto& e : task.mm.vmas()) {
    if (!(e.flags() & MAP_LOCKED) || is_vdso_group(e) || (e.status() & kVmaVsyscall)) continue;
    const uint64_t size = e.end() - e.start();
    if (on_fault.contains(e.start()))
      batch.add(__NR_mlock2, e.start(), size, MLOCK_ONFAULT);
    else
      batch.add(__NR_mlock, e.start(), size);
    if ((e.prot() & PROT_READ) && !is_file_backed(e) && !guarded) batch.must(cat("mlock ", hex(e.start())));
    if (batch.size() >= kBatchCalls) TRY(flush(runner, batch));
  }
  if (task.memory && task.memory->lock_future()) {
    batch.add(__NR_mlockall, task.memory->lock_future());
    batch.must("mlockall");
  }
  return flush(runner, batch);
}

// Where code, data, heap, arguments and environment are, the auxiliary vector and the
// executable: prctl(2) PR_SET_MM_MAP, the one form that needs no CAP_SYS_RESOURCE.
Result<void> describe_mm(remote::Runner& runner, const tasks::TaskImage& task, const tasks::Pool& pool) {
  const auto& mm = task.mm;
  Batch batch;
  std::vector<uint64_t> auxv(mm.mm_saved_auxv().begin(), mm.mm_saved_auxv().end());
  const auto vector = batch.data(auxv.data(), auxv.size() * 8);
  kernel::PrctlMmMap map{mm.mm_start_code(),
                         mm.mm_end_code(),
                         mm.mm_start_data(),
                         mm.mm_end_data(),
                         mm.mm_start_brk(),
                         mm.mm_brk(),
                         mm.mm_start_stack(),
                         mm.mm_arg_start(),
                         mm.mm_arg_end(),
                         mm.mm_env_start(),
                         mm.mm_env_end(),
                         0,
                         static_cast<uint32_t>(auxv.size() * 8),
                         static_cast<uint32_t>(pool.file.at(mm.exe_file_id()))};
  const auto at = batch.put(map);
  batch.point(at, offsetof(kernel::PrctlMmMap, auxv), vector);
  batch.add(__NR_prctl, PR_SET_MM, PR_SET_MM_MAP, at, sizeof(map), 0);
  batch.must("prctl(PR_SET_MM_MAP)");
  if (mm.thp_disabled()) {
    batch.add(__NR_prctl, PR_SET_THP_DISABLE, 1, 0, 0, 0);
    batch.must("prctl(PR_SET_THP_DISABLE)");
  }
  return runner.run_checked(batch);
}

}  // namespace

Result<VdsoLayout> own_vdso(const procfs::Procfs& proc) {
  VdsoLayout layout;
  uint64_t start = 0;
  for (const auto& map : TRY(procfs::parse_smaps(TRY(proc.text(::getpid(), "maps"))))) {
    if (!is_group(map)) continue;
    if (layout.parts.empty()) start = map.start;
    layout.parts.emplace_back(map.start - start, map.size());
    layout.size = map.end - start;
    if (map.name == "[vdso]") layout.text_offset = map.start - start, layout.text_size = map.size();
  }
  return layout;
}

Result<uint64_t> own_vdso_start(const procfs::Procfs& proc) {
  for (const auto& map : TRY(procfs::parse_smaps(TRY(proc.text(::getpid(), "maps")))))
    if (map.name == "[vdso]") return map.start;
  return uint64_t{0};
}

Result<void> check_vdso(const tasks::TaskImage& task, const VdsoLayout& own, uint64_t own_start, int pages_fd) {
  auto differs = [&](const char* how) {
    return fail(Error(Code::kKernelFeature, cat("pid ", task.node.pid(), ": the vDSO of this kernel ", how,
                                                "; restoring on another kernel is not supported yet"))
                    .about("[vdso]"));
  };
  std::vector<std::pair<uint64_t, uint64_t>> parts;
  uint64_t start = 0, text = 0, text_size = 0;
  for (const auto& e : task.mm.vmas()) {
    if (!is_vdso_group(e)) continue;
    if (parts.empty()) start = e.start();
    parts.emplace_back(e.start() - start, e.end() - e.start());
    if (e.status() & kVmaVdso) text = e.start(), text_size = e.end() - e.start();
  }
  if (parts.empty()) return {};
  if (parts != own.parts) return differs("is laid out differently");
  for (const auto& run : task.pagemap.runs) {
    if (text < run.vaddr || text >= run.vaddr + run.nr_pages * kernel::kPageSize) continue;
    std::vector<uint8_t> bytes(text_size);
    const auto offset = static_cast<off_t>(run.file_offset + (text - run.vaddr));
    if (::pread(pages_fd, bytes.data(), bytes.size(), offset) != static_cast<ssize_t>(bytes.size()))
      return fail_sys(Code::kImageCorrupt, "read the vDSO of the images");
    if (std::memcmp(bytes.data(), reinterpret_cast<void*>(own_start), bytes.size()) != 0)
      return differs("has other contents");
  }
  return {};
}

Result<void> check_huge_pages(const tasks::Snapshot& snapshot) {
  std::map<uint64_t, uint64_t> bytes;  // by size of the pages
  for (const auto& task : snapshot.tasks)
    for (const auto& e : task.mm.vmas())
      if ((e.status() & kVmaAnonPrivate) && !(e.flags() & MAP_NORESERVE))
        bytes[huge_size(e.flags())] += e.end() - e.start();
  for (const auto& [id, object] : snapshot.shared) bytes[object.huge_page] += object.size;
  for (const auto& [id, segment] : snapshot.segments) bytes[segment.huge_page] += segment.size;
  for (const auto& [id, memfd] : snapshot.memfds) bytes[memfd.huge_page()] += memfd.entry.size();
  bytes.erase(0);
  for (const auto& [page, size] : bytes) {
    const std::string directory = cat("/sys/kernel/mm/hugepages/hugepages-", page / 1024, "kB/");
    auto number = [&](const char* file) {
      const auto text = read_file_at(AT_FDCWD, directory + file);
      return text ? parse_int<int64_t>(trim(*text)).value_or(0) : 0;
    };
    const int64_t free = number("free_hugepages") - number("resv_hugepages") + number("nr_overcommit_hugepages") -
                         number("surplus_hugepages");
    const auto needed = static_cast<int64_t>((size + page - 1) / page);
    if (needed > free)
      return fail(Error(Code::kRestoreFailed, cat("the images need ", needed, " huge pages of ", page / 1024,
                                                  " kB, and this host has ", free, " free"))
                      .about(directory + "nr_hugepages"));
  }
  return {};
}

Result<void> clear(remote::Runner& runner, uint64_t keep_begin, uint64_t keep_end) {
  Batch batch;
  // glibc registered a restartable sequence area for the engine; the kernel would go on writing to it.
  const auto rseq = TRY(kernel::get_rseq(runner.pid()));
  if (rseq.address) {
    batch.add(__NR_rseq, rseq.address, rseq.size, RSEQ_FLAG_UNREGISTER, rseq.signature);
    batch.must("rseq(UNREGISTER)");
  }
  batch.add(__NR_set_robust_list, 0, 24);
  batch.add(__NR_munmap, 0, keep_begin);
  batch.must("munmap below the arena");
  batch.add(__NR_munmap, keep_end, kTaskSize - keep_end);
  batch.must("munmap above the arena");
  return runner.run_checked(batch);
}

Result<uint64_t> rebuild(remote::Runner& runner, const tasks::TaskImage& task, const tasks::Pool& pool,
                         const Segments& segments) {
  TRY(map_all(runner, task, pool));
  TRY(attach_segments(runner, task, segments));
  const uint64_t pages = TRY(read_all_pages(runner, task, pool));
  TRY(protect(runner, task));
  if (task.memory) TRY(guard(runner, *task.memory));
  if (task.memory) TRY(name(runner, task));
  TRY(lock(runner, task));
  TRY(describe_mm(runner, task, pool));
  return pages;
}

}  // namespace stasis::memory
