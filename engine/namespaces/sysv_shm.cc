// SPDX-License-Identifier: Apache-2.0
// System V shared memory, shmget(2) -> ipcns-shm-ID.img, contents in pagemap-shmem-SEGMENT.img. A segment keeps its id,
// which programs remember, by /proc/sys/kernel/shm_next_id. Who last attached it and when is not kept.
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "engine/base/io.h"
#include "engine/memory/shared.h"
#include "engine/namespaces/namespaces.h"
#include "proto/namespaces.pb.h"

namespace stasis::namespaces {
namespace {

constexpr uint64_t kPiece = 1u << 20;  // of contents that lie in the image itself
constexpr uint32_t kPermissions = 0777;

std::string image_name(uint32_t id) { return cat("ipcns-shm-", id, ".img"); }
std::string segment_name(uint32_t id) { return cat("System V segment ", id); }

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

std::optional<uint32_t> id_inside(const procfs::IdMap* map, uint32_t id) { return map ? map->inside(id) : id; }

Result<void> dump_segment(uint32_t id, image::RecordFile& file, memory::SharedObjects& shared,
                          const procfs::UserMaps* users) {
  struct shmid_ds ds {};
  if (::shmctl(static_cast<int>(id), IPC_STAT, &ds) < 0) return fail_sys("shmctl(IPC_STAT)", segment_name(id));
  const auto mine = TRY(Attached::attach(id, SHM_RDONLY));
  const Fd contents = TRY(memory::open_own_mapping(mine.at()));
  pb::ipc_shm_entry entry;
  auto& desc = *entry.mutable_desc();
  desc.set_key(static_cast<uint32_t>(ds.shm_perm.__key));
  const auto uid = id_inside(users ? &users->uid : nullptr, ds.shm_perm.uid),
             gid = id_inside(users ? &users->gid : nullptr, ds.shm_perm.gid),
             creator_uid = id_inside(users ? &users->uid : nullptr, ds.shm_perm.cuid),
             creator_gid = id_inside(users ? &users->gid : nullptr, ds.shm_perm.cgid);
  if (!uid || !gid || !creator_uid || !creator_gid)
    return fail(Error(Code::kUnsupported, cat(segment_name(id),
                                              " belongs to a user of the host, whom the container's user "
                                              "namespace does not have"))
                    .about(segment_name(id)));
  desc.set_uid(*uid), desc.set_gid(*gid), desc.set_cuid(*creator_uid), desc.set_cgid(*creator_gid);
  desc.set_mode(ds.shm_perm.mode);
  desc.set_id(id);
  entry.set_size(ds.shm_segsz);
  entry.set_in_pagemaps(true);
  if (const uint64_t huge = memory::huge_page_of(contents.get()))
    entry.set_hugetlb_flag(SHM_HUGETLB | static_cast<uint32_t>(std::countr_zero(huge)) << 26);
  TRY(file.append(entry));
  TRY_CTX(shared.dump(contents.get(), id), segment_name(id));
  shared.add_segment(id);
  return {};
}

// The creator's ids are those of the caller of shmget(2); only the owner's can be changed afterwards.
Result<int> create(const pb::ipc_shm_entry& entry) {
  const auto& desc = entry.desc();
  const int flags = static_cast<int>(IPC_CREAT | IPC_EXCL | entry.hugetlb_flag());
  TRY(write_file_at(AT_FDCWD, "/proc/sys/kernel/shm_next_id", cat(desc.id())));
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  const bool other = (desc.cuid() != uid || desc.cgid() != gid) && !entry.hugetlb_flag();
  if (other && (::setegid(desc.cgid()) < 0 || ::seteuid(desc.cuid()) < 0))
    return fail_sys("become the creator of", segment_name(desc.id()));
  const int got =
      ::shmget(static_cast<key_t>(desc.key()), entry.size(), flags | static_cast<int>(desc.mode() & kPermissions));
  const int error = errno;
  if (other) {
    if (::seteuid(uid) < 0 || ::setegid(gid) < 0) return fail_sys("seteuid back from the creator of a segment");
    ::prctl(PR_SET_DUMPABLE, 1);  // which the change of ids has taken away
  }
  errno = error;
  if (got < 0) return fail_sys("shmget", segment_name(desc.id()));
  if (static_cast<uint32_t>(got) != desc.id())
    return fail(
        Error(Code::kRestoreFailed, cat(segment_name(desc.id()), " became ", got)).about(segment_name(desc.id())));
  return got;
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
  const int id = TRY(create(entry));
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
  ds.shm_perm.mode = static_cast<unsigned short>(desc.mode() & kPermissions);
  if (::shmctl(id, IPC_SET, &ds) < 0) return fail_sys("shmctl(IPC_SET)", segment_name(desc.id()));
  if ((desc.mode() & SHM_LOCKED) && ::shmctl(id, SHM_LOCK, nullptr) < 0)
    return fail_sys("shmctl(SHM_LOCK)", segment_name(desc.id()));
  return {};
}

Result<void> check(const pb::ipc_shm_entry& entry, const image::RecordReader& file) {
  if (entry.size() == 0 || entry.size() > uint64_t{1} << 46) return fail(file.corrupt("size of a segment"));
  if (entry.desc().id() >= uint32_t{1} << 31) return fail(file.corrupt("id of a segment"));
  if (entry.hugetlb_flag() & ~(uint32_t{SHM_HUGETLB} | 0x3fu << 26)) return fail(file.corrupt("flags of a segment"));
  return {};
}

}  // namespace

Result<void> dump_shm(uint32_t id, image::Writer& images, memory::SharedObjects& shared,
                      const procfs::UserMaps* users) {
  const auto text = read_file_at(AT_FDCWD, "/proc/sysvipc/shm");
  if (!text) return {};  // a kernel without System V IPC
  const auto rows = lines(*text);
  if (rows.size() < 2) return {};
  auto file = TRY(images.open(image::Kind::kIpcShm, image_name(id)));
  for (size_t i = 1; i < rows.size(); ++i) {
    const auto f = fields(rows[i]);
    const auto segment = f.size() > 1 ? parse_int<uint32_t>(f[1]) : std::nullopt;
    if (!segment) return fail(Code::kInternal, cat("/proc/sysvipc/shm: cannot parse \"", rows[i], "\""));
    TRY(dump_segment(*segment, file, shared, users));
  }
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
