// SPDX-License-Identifier: Apache-2.0
// Memory files, memfd_create(2): name, size, owner, mode, seals and contents, kept once per inode, and every open file
// description of them. A mapped memfd is a file here too. Contents: engine/memory/shared.h.
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/memory/shared.h"

#ifndef MFD_NOEXEC_SEAL  // 6.3, include/uapi/linux/memfd.h
#define MFD_NOEXEC_SEAL 0x0008U
#define MFD_EXEC 0x0010U
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

namespace stasis::files {
namespace {

constexpr uint32_t kKnownSeals =
    F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_EXEC;
constexpr size_t kMaxName = 249;  // mm/memfd.c MFD_NAME_MAX_LEN
constexpr std::string_view kPrefix = "/memfd:", kDeleted = " (deleted)";

// The kernel's own mount, which nobody can make a file in by other means.
dev_t shmem_device() {
  static const dev_t device = [] {
    const Fd fd(::memfd_create("stasis", MFD_CLOEXEC));
    struct stat st {};
    return fd && ::fstat(fd.get(), &st) == 0 ? st.st_dev : dev_t{};
  }();
  return device;
}

bool matches(const Candidate& c) {
  return S_ISREG(c.st.st_mode) && c.st.st_nlink == 0 && c.link.starts_with(kPrefix) && c.link.ends_with(kDeleted) &&
         (c.st.st_dev == shmem_device() || memory::huge_page_of(c.copy.get()) != 0);
}

Result<void> check(const Candidate& c, const DumpEnv&) { return check_owner(c); }

// The inode, the first time it is met.
Result<uint64_t> dump_inode(const Candidate& c, const DumpEnv& env, DumpOutput& out) {
  const Fd file = TRY(open_at(AT_FDCWD, cat("/proc/self/fd/", c.copy.get()), O_RDONLY));
  const uint64_t id = TRY(out.shared->id_of(file.get()));
  if (std::ranges::any_of(out.memfds, [&](const auto& m) { return m.inode_id() == id; })) return id;
  const int seals = ::fcntl(file.get(), F_GET_SEALS);
  if (seals < 0) return fail_sys("fcntl(F_GET_SEALS)", c.name());
  if (static_cast<uint32_t>(seals) & ~kKnownSeals)
    return fail(Error(Code::kUnsupportedFile, cat(c.name(), " has unknown seals ", hex(static_cast<uint32_t>(seals))))
                    .about(c.name()));
  const auto owner = TRY(owner_of(c, env));
  auto& inode = out.memfds.emplace_back();
  const std::string_view link = c.link;
  inode.set_name(std::string(link.substr(kPrefix.size(), link.size() - kPrefix.size() - kDeleted.size())));
  inode.set_uid(owner.uid), inode.set_gid(owner.gid);
  inode.set_size(static_cast<uint64_t>(c.st.st_size));
  inode.set_shmid(static_cast<uint32_t>(id));
  inode.set_seals(static_cast<uint32_t>(seals));
  inode.set_inode_id(id);
  if (const uint64_t huge = memory::huge_page_of(file.get()))
    inode.set_hugetlb_flag(MFD_HUGETLB | static_cast<uint32_t>(std::countr_zero(huge)) << 26);
  pb::shmem_extra extra;
  extra.set_shmid(id);
  extra.set_size(inode.size());
  extra.set_mode(c.st.st_mode & 07777);
  out.images->add_shmem_extra(extra);
  return id;
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  auto& memfd = *entry.mutable_memfd();
  entry.set_type(pb::MEMFD);
  memfd.set_id(entry.id());
  memfd.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  memfd.set_pos(c.info.pos);
  set_no_owner(memfd.mutable_fown());
  memfd.set_inode_id(TRY(dump_inode(c, env, out)));
  return {};
}

Result<Fd> create(const MemfdImage& image) {
  const auto& inode = image.entry;
  uint32_t flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | inode.hugetlb_flag();
  // Where vm.memfd_noexec forbids executable ones, the sealed kind must be asked for by name.
  flags |= (inode.seals() & F_SEAL_EXEC) && !(image.mode & 0111) ? MFD_NOEXEC_SEAL : MFD_EXEC;
  Fd fd(::memfd_create(inode.name().c_str(), flags));
  if (!fd && errno == EINVAL) fd = Fd(::memfd_create(inode.name().c_str(), flags & ~(MFD_NOEXEC_SEAL | MFD_EXEC)));
  if (!fd) return fail_sys("memfd_create", inode.name());
  if (::ftruncate(fd.get(), static_cast<off_t>(inode.size())) < 0) return fail_sys("ftruncate of memfd", inode.name());
  return fd;
}

Result<Fd> make_inode(const MemfdImage& image, const image::Reader& images) {
  const auto& inode = image.entry;
  Fd fd = TRY(create(image));
  TRY_CTX(memory::fill_shared(images, image.pagemap, fd.get(), inode.size()), "memfd ", inode.name());
  if (::fchown(fd.get(), inode.uid(), inode.gid()) < 0) return fail_sys("fchown of memfd", inode.name());
  if (::fchmod(fd.get(), image.mode) < 0) return fail_sys("fchmod of memfd", inode.name());
  if (const uint32_t seals = inode.seals() & ~late_seals(inode); seals && ::fcntl(fd.get(), F_ADD_SEALS, seals) < 0)
    return fail_sys("fcntl(F_ADD_SEALS) of memfd", inode.name());
  return fd;
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  const auto image = env.memfds->find(entry.memfd().inode_id());
  if (!entry.has_memfd() || image == env.memfds->end())
    return fail(Code::kImageCorrupt, cat("files.img: file ", entry.id(), " is no memfd"));
  auto [at, fresh] = env.open_memfds.try_emplace(image->first);
  if (fresh) at->second = TRY(make_inode(image->second, *env.images));
  const int flags = static_cast<int>(entry.memfd().flags() & (O_ACCMODE | O_PATH | kSettableFlags));
  // Each description is opened for itself: more than one of them shows the inode, with flags and position of its own.
  Fd fd = TRY(open_at(env.proc, cat("self/fd/", at->second.get()), flags));
  if (!(flags & O_PATH) && ::lseek(fd.get(), static_cast<off_t>(entry.memfd().pos()), SEEK_SET) < 0)
    return fail_sys("lseek in memfd", image->second.entry.name());
  return fd;
}

const pb::shmem_extra* find_extra(const image::Reader& images, uint32_t shmid) {
  if (!images.manifest()) return nullptr;
  for (const auto& e : images.manifest()->shmem_extras())
    if (e.shmid() == shmid && e.has_mode()) return &e;
  return nullptr;
}

}  // namespace

uint64_t MemfdImage::huge_page() const {
  const uint32_t shift = entry.hugetlb_flag() >> 26;
  return entry.hugetlb_flag() == 0 ? 0 : uint64_t{1} << (shift ? shift : 21);
}

uint32_t late_seals(const pb::memfd_inode_entry& inode) {
  // Mappings that were writable before stay so, and have to be made before: mm/memfd.c memfd_add_seals(). What seals
  // the seals comes last of all.
  return inode.seals() & F_SEAL_FUTURE_WRITE ? inode.seals() & (F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) : 0;
}

Result<std::map<uint64_t, MemfdImage>> load_memfds(const image::Reader& images) {
  const std::string file = "memfd.img";
  std::map<uint64_t, MemfdImage> out;
  if (!images.exists(file)) return out;
  for (auto& entry : TRY(images.read_all<pb::memfd_inode_entry>(image::Kind::kMemfdInode, file))) {
    auto corrupt = [&](std::string_view what) {
      return fail(Error(Code::kImageCorrupt, cat(file, ": memfd ", entry.inode_id(), " ", what)).about(file));
    };
    const auto& name = entry.name();
    if (name.size() > kMaxName || name.find('\0') != std::string::npos) return corrupt("has a bad name");
    if (entry.seals() & ~kKnownSeals) return corrupt("has unknown seals");
    const uint32_t huge = entry.hugetlb_flag(), shift = huge >> 26;
    if (huge & ~(uint32_t{MFD_HUGETLB} | 0x3fu << 26) || (shift && (shift < 12 || shift > 40)))
      return corrupt("has unknown flags");
    if (huge && entry.size() % (uint64_t{1} << (shift ? shift : 21))) return corrupt("ends within a huge page");
    MemfdImage image;
    image.pagemap = TRY(memory::load_shared_pages(images, entry.shmid(), entry.size()));
    if (const auto* extra = find_extra(images, entry.shmid())) image.mode = extra->mode() & 07777;
    const uint64_t id = entry.inode_id();
    image.entry = std::move(entry);
    if (!out.try_emplace(id, std::move(image)).second)
      return fail(Error(Code::kImageCorrupt, cat(file, ": memfd ", id, " occurs twice")).about(file));
  }
  return out;
}

const FileKind kMemfd = {"memfd", pb::MEMFD, matches, check, dump, restore};

}  // namespace stasis::files
