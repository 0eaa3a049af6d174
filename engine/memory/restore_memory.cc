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
#include "engine/memory/keys.h"
#include "engine/memory/vma.h"

// arch/x86/include/uapi/asm/prctl.h ARCH_MAP_VDSO_32, ARCH_MAP_VDSO_64
#define ARCH_MAP_VDSO_32_CODE 0x2002
#define ARCH_MAP_VDSO_64_CODE 0x2003

namespace stasis::memory {
namespace {

using remote::Batch;

constexpr size_t kBatchCalls = 512;
constexpr int kMadvGuardInstall = 102;      // 6.13, include/uapi/asm-generic/mman-common.h
constexpr size_t kVectors = 256;            // per preadv
constexpr uint64_t kReadBytes = 64u << 20;  // per preadv, far below what read(2) caps

Result<void> flush(remote::Runner& runner, Batch& batch) {
  TRY(runner.run_checked(batch));
  batch = Batch();
  return {};
}

// The sources are in ascending order.
bool has_pages(const tasks::TaskImage& task, const pb::vma_entry& e) {
  const auto at = std::lower_bound(task.sources.begin(), task.sources.end(), e.start(),
                                   [](const auto& source, uint64_t start) { return source.end <= start; });
  return at != task.sources.end() && at->start < e.end();
}

bool is_kept(const Premap& premap, const pb::vma_entry& e) {
  return !is_vdso_group(e) && !intersect(premap.kept, {{e.start(), e.end()}}).empty();
}

// Of the kernel's making, so not ours to make: all of it, or only its data if the code is kept.
bool is_kernels(const VdsoPlan& vdso, const pb::vma_entry& e) {
  return is_vdso_group(e) && !(vdso.redirect && (e.status() & kVmaVdso));
}

Result<void> map_all(remote::Runner& runner, const tasks::TaskImage& task, const TaskPlan& plan,
                     const tasks::Pool& pool) {
  const auto& [premap, vdso] = plan;
  Batch batch;
  if (vdso.at) {
    batch.add(__NR_arch_prctl, vdso.ia32 ? ARCH_MAP_VDSO_32_CODE : ARCH_MAP_VDSO_64_CODE, vdso.at);
    batch.must(vdso.ia32 ? "arch_prctl(ARCH_MAP_VDSO_32)" : "arch_prctl(ARCH_MAP_VDSO_64)");
  }
  for (const auto& e : task.mm.vmas()) {
    if (is_kernels(vdso, e) || (e.status() & kVmaVsyscall) || is_kept(premap, e)) continue;
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

bool inside_vdso(const tasks::TaskImage& task, const VdsoPlan& vdso, uint64_t address) {
  for (const auto& e : task.mm.vmas())
    if (is_kernels(vdso, e) && address >= e.start() && address < e.end()) return true;
  return false;
}

// Pages of a mapping that a task had from its creator and that are not its own.
Result<void> discard(remote::Runner& runner, const Premap& premap) {
  Batch batch;
  for (const auto& run : premap.stale) {
    batch.add(__NR_madvise, run.start, run.end - run.start, MADV_DONTNEED);
    batch.must(cat("madvise(MADV_DONTNEED) ", hex(run.start)));
    if (batch.size() >= kBatchCalls) TRY(flush(runner, batch));
  }
  return flush(runner, batch);
}

// Reads that the task makes itself: pages that lie one behind the other in a file come in one call.
class PageReader {
 public:
  PageReader(remote::Runner& runner, const tasks::Pool& pool) : runner_(runner), pool_(pool) {}

  Result<void> add(Run run, uint32_t pages_id, uint64_t offset) {
    while (run.start < run.end) {
      if (!vectors_.empty() &&
          (pages_id != pages_id_ || offset_ + bytes_ != offset || vectors_.size() == kVectors || bytes_ >= kReadBytes))
        TRY(flush());
      if (vectors_.empty()) offset_ = offset, pages_id_ = pages_id;
      const uint64_t size = std::min(run.end - run.start, kReadBytes);
      vectors_.push_back({reinterpret_cast<void*>(run.start), size});
      run.start += size, offset += size, bytes_ += size;
    }
    return {};
  }

  Result<void> flush() {
    if (vectors_.empty()) return {};
    Batch batch;
    const auto list = batch.data(vectors_.data(), vectors_.size() * sizeof(iovec));
    const size_t call = batch.add(__NR_preadv, pool_.pages.at(pages_id_), list, vectors_.size(), offset_, 0);
    batch.must("preadv of pages");
    TRY(runner_.run_checked(batch));
    const std::string name = cat("pages-", pages_id_, ".img");
    if (static_cast<uint64_t>(batch.result(call)) != bytes_)
      return fail(
          Error(Code::kImageCorrupt, cat(name, ": read ", batch.result(call), " of ", bytes_, " bytes")).about(name));
    vectors_.clear();
    bytes_ = 0;
    return {};
  }

 private:
  remote::Runner& runner_;
  const tasks::Pool& pool_;
  std::vector<iovec> vectors_;
  uint32_t pages_id_ = 0;
  uint64_t offset_ = 0, bytes_ = 0;
};

Result<uint64_t> read_all_pages(remote::Runner& runner, const tasks::TaskImage& task, const TaskPlan& plan,
                                const tasks::Pool& pool) {
  const auto& [premap, vdso] = plan;
  PageReader reader(runner, pool);
  uint64_t pages = 0;
  for (const auto& source : task.sources) {
    if (inside_vdso(task, vdso, source.start)) continue;
    pages += (source.end - source.start) / kernel::kPageSize;
    for (const auto& run : subtract({{source.start, source.end}}, premap.ready))
      TRY(reader.add(run, source.pages_id, source.offset + (run.start - source.start)));
  }
  TRY(reader.flush());
  return pages;
}

Result<void> protect(remote::Runner& runner, const tasks::TaskImage& task, const TaskPlan& plan) {
  const auto& [premap, vdso] = plan;
  Batch batch;
  for (const auto& e : task.mm.vmas()) {
    if (is_kernels(vdso, e) || (e.status() & kVmaVsyscall)) continue;
    const uint64_t size = e.end() - e.start();
    const int now = is_kept(premap, e) ? PROT_READ | PROT_WRITE : fill_protection(e, has_pages(task, e));
    if (now != static_cast<int>(e.prot())) {
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

Result<void> clear(remote::Runner& runner, const Runs& keep) {
  Batch batch;
  // glibc registered a restartable sequence area for the engine; the kernel would go on writing to it.
  const auto rseq = TRY(kernel::get_rseq(runner.pid()));
  if (rseq.address) {
    batch.add(__NR_rseq, rseq.address, rseq.size, RSEQ_FLAG_UNREGISTER, rseq.signature);
    batch.must("rseq(UNREGISTER)");
  }
  batch.add(__NR_set_robust_list, 0, 24);
  for (const auto& run : subtract({{0, kTaskSize}}, keep)) {
    batch.add(__NR_munmap, run.start, run.end - run.start);
    batch.must(cat("munmap at ", hex(run.start)));
    if (batch.size() >= kBatchCalls) TRY(flush(runner, batch));
  }
  return runner.run_checked(batch);
}

Result<uint64_t> rebuild(remote::Runner& runner, const tasks::TaskImage& task, const TaskPlan& plan,
                         const tasks::Pool& pool, const Segments& segments) {
  TRY(take_keys(runner, task));
  TRY(map_all(runner, task, plan, pool));
  TRY(attach_segments(runner, task, segments));
  TRY(discard(runner, plan.premap));
  const uint64_t pages = TRY(read_all_pages(runner, task, plan, pool));
  for (const auto& [at, code] : plan.vdso.patches) TRY(kernel::vm_write(runner.pid(), at, code.data(), code.size()));
  TRY(protect(runner, task, plan));
  if (task.memory) TRY(guard(runner, *task.memory));
  if (task.memory) TRY(name(runner, task));
  TRY(lock(runner, task));
  TRY(describe_mm(runner, task, pool));
  TRY(give_keys(runner, task));
  return pages;
}

}  // namespace stasis::memory
