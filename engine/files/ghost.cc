// SPDX-License-Identifier: Apache-2.0
// Regular files that have no name any more but are open or mapped: contents go to ghost-file-ID.img, holes left out,
// and remap-fpath.img says which file of files.img is which ghost. On restore the file is made where it was, opened,
// and its name removed again; one that never had a name (O_TMPFILE) gets none.
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "engine/base/interrupt.h"
#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/kernel/syscalls.h"

namespace stasis::files {
namespace {

constexpr std::string_view kDeleted = " (deleted)";
constexpr uint64_t kChunk = 1u << 20;  // a reader has a whole one in memory
constexpr uint32_t kOldGhost = uint32_t{1} << 31;

std::string ghost_name(uint32_t id) { return image::file_name(image::Kind::kGhostFile, id); }

std::string name_of(const Candidate& c) {
  std::string_view link = c.link;
  if (link.ends_with(kDeleted)) link.remove_suffix(kDeleted.size());
  return std::string(link);
}

std::string parent_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

// The kernel names files of open(2) O_TMPFILE "#INODE".
bool never_named(const std::string& path) {
  const auto base = path.substr(path.rfind('/') + 1);
  return base.size() > 1 && base[0] == '#' && parse_int<uint64_t>(base.substr(1)).has_value();
}

Result<void> write_data(int fd, uint64_t size, image::RecordFile& file) {
  const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(kChunk);
  for (uint64_t at = 0; at < size;) {
    const off_t data = ::lseek(fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    const off_t hole = data < 0 ? -1 : ::lseek(fd, data, SEEK_HOLE);
    if (hole < 0) return fail_sys("lseek(SEEK_DATA)", "deleted file");
    const uint64_t end = std::min<uint64_t>(static_cast<uint64_t>(hole), size);
    for (at = static_cast<uint64_t>(data); at < end;) {
      TRY(check_interrupted());
      const ssize_t n = ::pread(fd, buffer.get(), std::min(kChunk, end - at), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return fail_sys("read", "deleted file");
      pb::ghost_chunk_entry chunk;
      chunk.set_off(at), chunk.set_len(static_cast<uint64_t>(n));
      TRY(file.append(chunk));
      TRY(file.append_payload(buffer.get(), static_cast<size_t>(n)));
      at += static_cast<uint64_t>(n);
    }
    at = end;
  }
  return {};
}

Result<void> dump_contents(const Candidate& c, const DumpEnv& env, uint32_t id, image::Writer& images) {
  const Fd fd = TRY(open_at(AT_FDCWD, cat("/proc/self/fd/", c.copy.get()), O_RDONLY | O_NONBLOCK));
  struct stat st {};
  if (::fstat(fd.get(), &st) < 0) return fail_sys("fstat", c.name());
  pb::ghost_file_entry entry;
  const auto owner = TRY(owner_of(c, env));
  entry.set_uid(owner.uid), entry.set_gid(owner.gid), entry.set_mode(st.st_mode);
  // In the kernel's own encoding, as everywhere in the images.
  entry.set_dev(major(st.st_dev) << 20 | minor(st.st_dev)), entry.set_ino(st.st_ino);
  auto time = [](pb::timeval& to, const timespec& from) {
    to.set_tv_sec(static_cast<uint64_t>(from.tv_sec)), to.set_tv_usec(static_cast<uint64_t>(from.tv_nsec) / 1000);
  };
  time(*entry.mutable_atim(), c.st.st_atim), time(*entry.mutable_mtim(), c.st.st_mtim);
  entry.set_chunks(true);
  entry.set_size(static_cast<uint64_t>(st.st_size));
  auto file = TRY(images.open(image::Kind::kGhostFile, ghost_name(id)));
  TRY(file.append(entry));
  TRY(write_data(fd.get(), entry.size(), file));
  return file.close();
}

// Record by record: what comes is a chunk, its bytes follow.
Result<pb::ghost_file_entry> read_head(image::RecordReader& file) {
  pb::ghost_file_entry entry;
  if (!TRY(file.next(entry))) return fail(file.corrupt("no record"));
  if (!S_ISREG(entry.mode())) return fail(file.corrupt("a deleted file that is not a regular one"));
  if (!entry.chunks()) entry.set_size(file.remaining());
  if (entry.size() > uint64_t{1} << 60) return fail(file.corrupt("size of a deleted file"));
  return entry;
}

// Calls `use` with the place and length of every piece of contents, which the reader stands before.
template <class Use>
Result<void> each_chunk(image::RecordReader& file, const pb::ghost_file_entry& entry, Use use) {
  if (!entry.chunks()) return use(uint64_t{0}, entry.size());
  pb::ghost_chunk_entry chunk;
  while (TRY(file.next(chunk))) {
    if (chunk.off() > entry.size() || chunk.len() > entry.size() - chunk.off())
      return fail(file.corrupt("a chunk behind the end of the file"));
    TRY(use(chunk.off(), chunk.len()));
  }
  return {};
}

// Free names beside the old one, for when that is somebody else's now.
Result<Fd> create_file(const std::string& path) {
  const std::string parent = parent_of(path);
  if (never_named(path)) {
    auto fd = open_at(AT_FDCWD, parent, O_TMPFILE | O_RDWR, 0600);
    if (fd || (fd.error().sys_errno() != EOPNOTSUPP && fd.error().sys_errno() != EISDIR)) return fd;
  }
  std::string name = path;
  for (int i = 0; i < 1000; ++i) {
    auto fd = open_at(AT_FDCWD, name, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW, 0600);
    if (!fd && fd.error().sys_errno() == EEXIST) {
      name = cat(parent == "/" ? "" : parent, "/.stasis-deleted-", i);
      continue;
    }
    if (fd && ::unlink(name.c_str()) < 0) return fail_sys("unlink", name);
    return fd;
  }
  return fail(Error(Code::kRestoreFailed, cat("no free name beside ", path)).about(path));
}

Result<Fd> make_ghost(uint32_t id, const std::string& path, const image::Reader& images, int proc) {
  auto file = TRY(images.records(image::Kind::kGhostFile, ghost_name(id)));
  const auto entry = TRY(read_head(file));
  const Fd fd = TRY_CTX(create_file(path), "deleted file ", path);
  if (::ftruncate(fd.get(), static_cast<off_t>(entry.size())) < 0) return fail_sys("ftruncate", path);
  TRY(each_chunk(file, entry, [&](uint64_t offset, uint64_t size) -> Result<void> {
    if (::lseek(fd.get(), static_cast<off_t>(offset), SEEK_SET) < 0) return fail_sys("lseek", path);
    while (size > 0) {
      const std::string piece = TRY(file.payload(std::min(size, kChunk)));
      TRY(write_full(fd.get(), piece.data(), piece.size(), path));
      size -= piece.size();
    }
    return {};
  }));
  if (::fchown(fd.get(), entry.uid(), entry.gid()) < 0) return fail_sys("fchown", path);
  if (::fchmod(fd.get(), entry.mode() & 07777) < 0) return fail_sys("fchmod", path);
  auto time = [](bool has, const pb::timeval& t) {
    return has ? timespec{static_cast<time_t>(t.tv_sec()), static_cast<long>(t.tv_usec() % 1000000 * 1000)}
               : timespec{0, UTIME_OMIT};
  };
  const timespec times[] = {time(entry.has_atim(), entry.atim()), time(entry.has_mtim(), entry.mtim())};
  if (::futimens(fd.get(), times) < 0) return fail_sys("futimens", path);
  // Without a writer left, so that it can be somebody's executable.
  return open_at(proc, cat("self/fd/", fd.get()), O_PATH);
}

}  // namespace

bool is_deleted(const Candidate& c) { return c.st.st_nlink == 0 || std::string_view(c.link).ends_with(kDeleted); }

Result<std::string> check_ghost(const Candidate& c, const DumpEnv& env) {
  auto refuse = [&](std::string why) {
    return fail(Error(Code::kUnsupportedFile, cat(c.name(), " is deleted", why)).about(c.name()));
  };
  if (!S_ISREG(c.st.st_mode)) return refuse(" and not a regular file");
  if (c.st.st_nlink != 0) return refuse(cat(" and has other names (", c.st.st_nlink, " hard links)"));
  const std::string path = name_of(c);
  if (!path.starts_with("/")) return refuse(" and lies on no file system of the container");
  // Where it is to be made again: the same mount, whose files are not the host's.
  const auto parent = kernel::open_path_in_root(env.root_dir.get(), parent_of(path));
  if (!parent) return refuse(", and so is its directory");
  if (TRY(env.proc.fdinfo(::getpid(), parent->get())).mnt_id != c.info.mnt_id)
    return refuse(", and its directory is on another mount now");
  const uint64_t bytes = static_cast<uint64_t>(c.st.st_blocks) * 512;
  if (bytes > env.options.ghost_limit)
    return refuse(cat(" and holds ", bytes, " bytes; --ghost-limit allows ", env.options.ghost_limit));
  return path;
}

Result<std::string> dump_ghost(const Candidate& c, const DumpEnv& env, DumpOutput& out, uint32_t file_id) {
  const std::string path = TRY(check_ghost(c, env));
  const auto [at, fresh] =
      out.ghosts.try_emplace({c.st.st_dev, c.st.st_ino}, static_cast<uint32_t>(out.ghosts.size() + 1));
  if (fresh) TRY_CTX(dump_contents(c, env, at->second, *out.images), c.name());
  auto& remap = out.remaps.emplace_back();
  remap.set_orig_id(file_id);
  remap.set_remap_id(at->second);
  remap.set_remap_type(pb::GHOST);
  return path;
}

Result<std::map<uint32_t, uint32_t>> load_ghosts(const image::Reader& images) {
  const std::string name = "remap-fpath.img";
  std::map<uint32_t, uint32_t> out;
  if (!images.exists(name)) return out;
  for (const auto& remap : TRY(images.read_all<pb::remap_file_path_entry>(image::Kind::kRemapFpath, name))) {
    const bool ghost = remap.has_remap_type() ? remap.remap_type() == pb::GHOST : (remap.remap_id() & kOldGhost) != 0;
    if (!ghost)
      return fail(Error(Code::kUnsupportedFile, cat(name, ": file ", remap.orig_id(),
                                                    " is of a kind that cannot be "
                                                    "restored yet (a link to it, or of a dead process)"))
                      .about(name));
    const uint32_t id = remap.has_remap_type() ? remap.remap_id() : remap.remap_id() & ~kOldGhost;
    auto file = TRY(images.records(image::Kind::kGhostFile, ghost_name(id)));
    const auto entry = TRY(read_head(file));
    TRY(each_chunk(file, entry, [&](uint64_t, uint64_t size) { return file.skip(size); }));
    out[remap.orig_id()] = id;
  }
  return out;
}

Result<Fd> restore_ghost(uint32_t id, const pb::reg_file_entry& reg, RestoreEnv& env) {
  const std::string path = reg.name().starts_with("/") ? reg.name() : "/" + reg.name();
  auto [at, fresh] = env.open_ghosts.try_emplace(id);
  if (fresh) at->second = TRY(make_ghost(id, path, *env.images, env.proc));
  constexpr uint32_t kOnlyWhenOpened = O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_TMPFILE;
  const int flags = static_cast<int>(reg.flags() & ~kOnlyWhenOpened);
  Fd fd = TRY(open_at(env.proc, cat("self/fd/", at->second.get()), flags));
  if (!(flags & O_PATH) && reg.pos() != 0 && ::lseek(fd.get(), static_cast<off_t>(reg.pos()), SEEK_SET) < 0)
    return fail_sys("lseek", path);
  return fd;
}

}  // namespace stasis::files
