// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/shared.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>

#include "engine/base/interrupt.h"
#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"
#include "proto/manifest.pb.h"

namespace stasis::memory {
namespace {

using kernel::kPageSize;
constexpr size_t kBuffer = 2u << 20;        // one huge page
constexpr uint64_t kReadBytes = 64u << 20;  // per pread, far below what read(2) caps
constexpr uint64_t kMaxObject = uint64_t{1} << 46;
constexpr int kHugeShift = 26;  // MAP_HUGE_SHIFT, MFD_HUGE_SHIFT

uint64_t round_up(uint64_t n) { return (n + kPageSize - 1) & ~(kPageSize - 1); }

bool is_zero(const uint8_t* at, size_t size) { return at[0] == 0 && std::memcmp(at, at + 1, size - 1) == 0; }

std::string map_file(uint64_t start, uint64_t end) {
  return cat("map_files/", hex(start).substr(2), "-", hex(end).substr(2));
}

// An object on its way to the images.
struct Copy {
  int fd;
  uint64_t size, block;  // block: what is looked at as a whole for being zero, or 0
  image::PagemapWriter pagemap;
  image::RawFile pages;
  std::unique_ptr<uint8_t[]> buffer = std::make_unique_for_overwrite<uint8_t[]>(kBuffer);

  Result<void> range(uint64_t start, uint64_t end) {
    for (uint64_t at = start; at < end;) {
      TRY(check_interrupted());
      const size_t want = std::min<uint64_t>(kBuffer, end - at);
      const ssize_t n = ::pread(fd, buffer.get(), want, static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return fail_sys("read shared memory", cat("at ", hex(at)));
      // The last page of a memfd may end within: what is behind it reads as zero.
      const size_t size = round_up(static_cast<size_t>(n));
      std::memset(buffer.get() + n, 0, size - static_cast<size_t>(n));
      if (!block || !is_zero(buffer.get(), size)) {
        TRY(pagemap.add(at, size / kPageSize));
        TRY(pages.append(buffer.get(), size));
      }
      at += size;
    }
    return {};
  }

  // hugetlbfs knows no SEEK_DATA: there everything is read, and what is zero left out.
  Result<void> all() {
    if (block) return range(0, size);
    for (uint64_t at = 0; at < size;) {
      const off_t data = ::lseek(fd, static_cast<off_t>(at), SEEK_DATA);
      if (data < 0 && errno == ENXIO) break;
      const off_t hole = data < 0 ? -1 : ::lseek(fd, data, SEEK_HOLE);
      if (hole < 0) return fail_sys("lseek(SEEK_DATA)", "shared memory");
      const uint64_t start = static_cast<uint64_t>(data) & ~(kPageSize - 1);
      const uint64_t end = std::min<uint64_t>(round_up(static_cast<uint64_t>(hole)), round_up(size));
      TRY(range(std::max(start, at), end));
      at = end;
    }
    return {};
  }
};

const pb::shmem_extra* find_extra(const image::Reader& images, uint64_t id) {
  if (!images.manifest()) return nullptr;
  for (const auto& e : images.manifest()->shmem_extras())
    if (e.shmid() == id) return &e;
  return nullptr;
}

}  // namespace

uint32_t huge_flags(uint64_t page_size) {
  if (page_size == 0) return 0;
  return MAP_HUGETLB | static_cast<uint32_t>(std::countr_zero(page_size)) << kHugeShift;
}

uint64_t huge_size(uint64_t flags) {
  const auto shift = flags >> kHugeShift & 0x3f;
  return !(flags & MAP_HUGETLB) ? 0 : shift ? uint64_t{1} << shift : uint64_t{2} << 20;
}

uint64_t huge_page_of(int fd) {
  struct statfs fs {};
  return ::fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? static_cast<uint64_t>(fs.f_bsize) : 0;
}

Result<Fd> open_own_mapping(void* at) {
  const auto proc = TRY(procfs::Procfs::open());
  for (const auto& map : TRY(procfs::parse_smaps(TRY(proc.text(::getpid(), "maps")))))
    if (map.start == reinterpret_cast<uint64_t>(at))
      return proc.open_file(::getpid(), map_file(map.start, map.end), O_RDONLY);
  return fail(Code::kInternal, "a mapping of our own is not in /proc/self/maps");
}

Result<uint64_t> SharedObjects::id_of(int fd) {
  struct stat st {};
  if (::fstat(fd, &st) < 0) return fail_sys("fstat", "shared memory");
  const auto [at, fresh] = known_.try_emplace({st.st_dev, st.st_ino}, next_id_);
  if (!fresh) return at->second;
  ++next_id_;
  TRY(dump(fd, at->second));
  return at->second;
}

Result<void> SharedObjects::add(const procfs::Procfs& proc, pid_t pid, Vma& vma) {
  const Fd fd =
      TRY_CTX(proc.open_file(pid, map_file(vma.map.start, vma.map.end), O_RDONLY), "shared memory of pid ", pid);
  const size_t before = known_.size();
  const uint64_t id = TRY_CTX(id_of(fd.get()), "shared memory of pid ", pid, " at ", hex(vma.map.start));
  vma.entry.set_shmid(id);
  if (known_.size() == before) return {};
  struct stat st {};
  if (::fstat(fd.get(), &st) < 0) return fail_sys("fstat", "shared memory");
  pb::shmem_extra extra;
  extra.set_shmid(id);
  extra.set_size(static_cast<uint64_t>(st.st_size));
  images_->add_shmem_extra(extra);
  return {};
}

Result<void> SharedObjects::dump(int fd, uint64_t id) {
  struct stat st {};
  if (::fstat(fd, &st) < 0) return fail_sys("fstat", "shared memory");
  const uint32_t pages_id = next_pages_++;
  Copy copy{fd, static_cast<uint64_t>(st.st_size), huge_page_of(fd),
            TRY(image::PagemapWriter::create(*images_, image::shmem_pagemap_name(id), pages_id)),
            TRY(images_->open_raw(image::pages_name(pages_id)))};
  TRY(copy.all());
  pages_written_ += copy.pagemap.total_pages();
  TRY(copy.pagemap.finish());
  return copy.pages.close();
}

Result<image::Pagemap> load_shared_pages(const image::Reader& images, uint64_t id, uint64_t size) {
  const std::string name = image::shmem_pagemap_name(id);
  auto corrupt = [&](std::string what) { return fail(Error(Code::kImageCorrupt, cat(name, ": ", what)).about(name)); };
  if (size > kMaxObject) return corrupt(cat("an object of ", size, " bytes"));
  if (!images.exists(name)) return image::Pagemap{};
  auto pagemap = TRY(image::read_pagemap(images, name));
  if (!pagemap.runs.empty()) {
    const auto& last = pagemap.runs.back();
    if (last.vaddr + last.nr_pages * kPageSize > round_up(size)) return corrupt("pages behind the end of the object");
  }
  return pagemap;
}

Result<void> load_shared(const image::Reader& images, const pb::vma_entry& vma, SharedImages& out) {
  const uint64_t end = vma.pgoff() + (vma.end() - vma.start());
  auto [at, fresh] = out.try_emplace(vma.shmid());
  auto& object = at->second;
  const auto* extra = find_extra(images, vma.shmid());
  const uint64_t huge = huge_size(vma.flags());
  if (!fresh && object.huge_page != huge)
    return fail(Error(Code::kImageCorrupt, cat("shared memory ", vma.shmid(), " has pages of two sizes")));
  object.huge_page = huge;
  object.reserve |= !(vma.flags() & MAP_NORESERVE);
  // CRIU does not say how large an object is: as far as anybody maps it.
  object.size = std::max({object.size, end, extra ? round_up(extra->size()) : 0});
  if (huge && object.size % huge)
    return fail(Error(Code::kImageCorrupt, cat("shared memory ", vma.shmid(), " ends within a huge page")));
  if (fresh || !extra) object.pagemap = TRY(load_shared_pages(images, vma.shmid(), object.size));
  return {};
}

Result<void> fill_mapped(const image::Reader& images, const image::Pagemap& pagemap, void* at, uint64_t size) {
  const std::string name = image::pages_name(pagemap.pages_id);
  const Fd pages = TRY(images.open_raw(name));
  for (const auto& run : pagemap.runs) {
    const uint64_t end = std::min(run.vaddr + run.nr_pages * kPageSize, round_up(size));
    for (uint64_t to = run.vaddr; to < end;) {
      const uint64_t want = std::min(end - to, kReadBytes);
      const auto from = static_cast<off_t>(run.file_offset + (to - run.vaddr));
      const ssize_t n = ::pread(pages.get(), static_cast<uint8_t*>(at) + to, want, from);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return fail_sys(Code::kImageCorrupt, "read", name);
      to += static_cast<uint64_t>(n);
    }
  }
  return {};
}

Result<void> fill_shared(const image::Reader& images, const image::Pagemap& pagemap, int fd, uint64_t size) {
  if (pagemap.runs.empty()) return {};
  void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (at == MAP_FAILED) return fail_sys("mmap of shared memory", cat(size, " bytes"));
  auto filled = fill_mapped(images, pagemap, at, size);
  ::munmap(at, size);
  return filled;
}

Result<Fd> make_shared(const SharedImage& object, int proc) {
  const int flags = MAP_SHARED | MAP_ANONYMOUS | (object.reserve ? 0 : MAP_NORESERVE) |
                    static_cast<int>(huge_flags(object.huge_page));
  void* at = ::mmap(nullptr, object.size, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (at == MAP_FAILED) return fail_sys("mmap of shared memory", cat(object.size, " bytes"));
  // Others map the very same object, under the same name in /proc/PID/maps, through this link.
  const auto start = reinterpret_cast<uint64_t>(at);
  auto fd = open_at(proc, cat("self/", map_file(start, start + object.size)), O_RDWR);
  ::munmap(at, object.size);
  return fd;
}

}  // namespace stasis::memory
