// SPDX-License-Identifier: Apache-2.0
// System V shared memory, shmget(2) -> ipcns-shm-ID.img, contents in pagemap-shmem-SEGMENT.img. A segment keeps its id,
// which programs remember, by /proc/sys/kernel/shm_next_id. Who last attached it and when is not kept.
#include <sys/mman.h>
#include <sys/shm.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/memory/shared.h"
#include "engine/namespaces/namespaces.h"
#include "engine/namespaces/sysv.h"
#include "proto/namespaces.pb.h"

namespace stasis::namespaces {
namespace {

constexpr uint64_t kPiece = 1u << 20;  // of contents that lie in the image itself

std::string image_name(uint32_t id) { return cat("ipcns-shm-", id, ".img"); }
std::string segment_name(uint32_t id) { return sysv_name("shm", id); }

// One's own attachment of a segment.
class Attached {
 public:
  static Result<Attached> attach(uint32_t id, int flags) {
    void* at = ::shmat(static_cast<int>(id), nullptr, flags);
    if (at == reinterpret_cast<void*>(-1)) return fail_sys("shmat", segment_name(id));
    return Attached(at);
  }
  Attached(Attached&& other) noexcept : at_(std::exchange(other.at_, nullptr)) {}
  Attached& operator=(Attached&&) = delete;
  ~Attached() {
    if (at_) ::shmdt(at_);
  }
  void* at() const { return at_; }

 private:
  explicit Attached(void* at) : at_(at) {}
  void* at_;
};

Result<void> dump_segment(uint32_t id, image::RecordFile& file, memory::SharedObjects& shared,
                          const procfs::UserMaps* users) {
  struct shmid_ds ds {};
  if (::shmctl(static_cast<int>(id), IPC_STAT, &ds) < 0) return fail_sys("shmctl(IPC_STAT)", segment_name(id));
  const auto mine = TRY(Attached::attach(id, SHM_RDONLY));
  const Fd contents = TRY(memory::open_own_mapping(mine.at()));
  pb::ipc_shm_entry entry;
  TRY(describe_sysv(ds.shm_perm, "shm", id, users, *entry.mutable_desc()));
  entry.set_size(ds.shm_segsz);
  entry.set_in_pagemaps(true);
  if (const uint64_t huge = memory::huge_page_of(contents.get()))
    entry.set_hugetlb_flag(SHM_HUGETLB | static_cast<uint32_t>(std::countr_zero(huge)) << 26);
  TRY(file.append(entry));
  TRY_CTX(shared.dump(contents.get(), id), segment_name(id));
  shared.add_segment(id);
  return {};
}

// Contents of CRIU's older images, behind the record.
Result<void> fill_from(image::RecordReader& file, void* at, uint64_t size) {
  for (uint64_t done = 0; done < size;) {
    const std::string piece = TRY(file.payload(std::min(kPiece, size - done)));
    std::memcpy(static_cast<char*>(at) + done, piece.data(), piece.size());
    done += piece.size();
  }
  return file.skip((4 - size % 4) % 4);
}

Result<void> restore_segment(const pb::ipc_shm_entry& entry, image::RecordReader& file, const image::Reader& images) {
  const auto& desc = entry.desc();
  // Huge pages are for those who have the right to lock memory.
  const int id = TRY(create_sysv("shm", desc, entry.hugetlb_flag() != 0, [&](int flags) {
    return ::shmget(static_cast<key_t>(desc.key()), entry.size(), flags | static_cast<int>(entry.hugetlb_flag()));
  }));
  {
    const auto mine = TRY(Attached::attach(desc.id(), 0));
    if (entry.in_pagemaps())
      TRY_CTX(memory::fill_mapped(images, TRY(memory::load_shared_pages(images, desc.id(), entry.size())), mine.at(),
                                  entry.size()),
              segment_name(desc.id()));
    else
      TRY(fill_from(file, mine.at(), entry.size()));
  }
  struct shmid_ds ds {};
  ds.shm_perm.uid = desc.uid(), ds.shm_perm.gid = desc.gid();
  ds.shm_perm.mode = static_cast<unsigned short>(desc.mode() & kSysvPermissions);
  if (::shmctl(id, IPC_SET, &ds) < 0) return fail_sys("shmctl(IPC_SET)", segment_name(desc.id()));
  if ((desc.mode() & SHM_LOCKED) && ::shmctl(id, SHM_LOCK, nullptr) < 0)
    return fail_sys("shmctl(SHM_LOCK)", segment_name(desc.id()));
  return {};
}

Result<void> check(const pb::ipc_shm_entry& entry, const image::RecordReader& file) {
  if (entry.size() == 0 || entry.size() > uint64_t{1} << 46) return fail(file.corrupt("size of a segment"));
  if (entry.desc().id() > kMaxSysvId) return fail(file.corrupt("id of a segment"));
  if (entry.hugetlb_flag() & ~(uint32_t{SHM_HUGETLB} | 0x3fu << 26)) return fail(file.corrupt("flags of a segment"));
  return {};
}

}  // namespace

Result<void> dump_shm(uint32_t id, image::Writer& images, memory::SharedObjects& shared,
                      const procfs::UserMaps* users) {
  const auto segments = TRY(list_sysv("shm"));
  if (segments.empty()) return {};
  auto file = TRY(images.open(image::Kind::kIpcShm, image_name(id)));
  for (uint32_t segment : segments) TRY(dump_segment(segment, file, shared, users));
  return file.close();
}

Result<std::map<uint64_t, Segment>> load_segments(uint32_t id, const image::Reader& images) {
  std::map<uint64_t, Segment> out;
  if (!images.exists(image_name(id))) return out;
  auto file = TRY(images.records(image::Kind::kIpcShm, image_name(id)));
  pb::ipc_shm_entry entry;
  while (TRY(file.next(entry))) {
    TRY(check(entry, file));
    const Segment segment{entry.size(),
                          memory::huge_size(entry.hugetlb_flag() & SHM_HUGETLB
                                                ? (entry.hugetlb_flag() & ~uint32_t{SHM_HUGETLB}) | MAP_HUGETLB
                                                : 0),
                          (entry.desc().mode() & SHM_DEST) != 0};
    if (!out.try_emplace(entry.desc().id(), segment).second) return fail(file.corrupt("a segment that occurs twice"));
    if (entry.in_pagemaps())
      TRY(memory::load_shared_pages(images, entry.desc().id(), entry.size()));
    else
      TRY(file.skip((entry.size() + 3) / 4 * 4));
  }
  return out;
}

Result<void> restore_shm(uint32_t id, const image::Reader& images) {
  if (!images.exists(image_name(id))) return {};
  auto file = TRY(images.records(image::Kind::kIpcShm, image_name(id)));
  pb::ipc_shm_entry entry;
  while (TRY(file.next(entry))) {
    TRY(check(entry, file));
    TRY(restore_segment(entry, file, images));
  }
  return {};
}

}  // namespace stasis::namespaces
