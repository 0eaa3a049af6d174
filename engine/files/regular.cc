// SPDX-License-Identifier: Apache-2.0
// Files found by their path: regular files, directories, memory devices (null, zero, full,
// random, urandom) and O_PATH descriptors. The image has no contents, only the path, which
// must lead to the same file in the restored mount namespace. open(2), proc(5).
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/kernel/syscalls.h"

namespace stasis::files {
namespace {

// major 1: mem(4). The device behind the node is the same everywhere.
bool is_memory_device(const struct stat& st) {
  if (!S_ISCHR(st.st_mode) || major(st.st_rdev) != 1) return false;
  const unsigned m = minor(st.st_rdev);
  return m == 3 || m == 5 || m == 7 || m == 8 || m == 9;
}

const char* memory_device_path(const struct stat& st) {
  switch (minor(st.st_rdev)) {
    case 3: return "/dev/null";
    case 5: return "/dev/zero";
    case 7: return "/dev/full";
    case 8: return "/dev/random";
    default: return "/dev/urandom";
  }
}

bool matches(const Candidate& c) {
  if (c.info.flags & O_PATH) return S_ISREG(c.st.st_mode) || S_ISDIR(c.st.st_mode) || S_ISCHR(c.st.st_mode);
  // The file systems whose files have no lasting path have links without a leading slash.
  return c.link.starts_with("/") && !c.link.starts_with("/memfd:") &&
         (S_ISREG(c.st.st_mode) || S_ISDIR(c.st.st_mode) || is_memory_device(c.st));
}

// stat(2) of `path` as the container sees it.
Result<struct stat> stat_in_container(const DumpEnv& env, const std::string& path) {
  const Fd fd = TRY(kernel::open_path_in_root(env.root_dir.get(), path));
  struct stat st {};
  if (::fstat(fd.get(), &st) < 0) return fail_sys("look up", path);
  return st;
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && (a.st_mode & S_IFMT) == (b.st_mode & S_IFMT);
}

std::unexpected<Error> outside(const Candidate& c) {
  return fail(Error(Code::kOutsideFile, cat(c.name(), " lies outside the container's mounts")).about(c.name()));
}

}  // namespace

Result<std::string> path_in_container(const Candidate& c, const DumpEnv& env) {
  if (is_deleted(c)) return check_ghost(c, env);
  const bool mount_known = !env.mounts || env.mounts->find(c.info.mnt_id) != nullptr;
  const auto found = mount_known ? stat_in_container(env, c.link) : Result<struct stat>(outside(c));
  if (found && same_file(*found, c.st)) return c.link;
  if (is_memory_device(c.st)) {
    // The host's /dev/null is as good as the container's own: no state is in either.
    const std::string path = memory_device_path(c.st);
    const auto own = stat_in_container(env, path);
    if (own && S_ISCHR(own->st_mode) && own->st_rdev == c.st.st_rdev) return path;
  }
  if (!mount_known) return outside(c);
  return fail(Error(Code::kUnsupportedFile,
                    cat(c.name(), " cannot be found by its path any more (renamed, replaced or mounted over)"))
                  .about(c.name()));
}

namespace {

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  constexpr long kMqueueMagic = 0x19800202;
  if (struct statfs fs{}; S_ISREG(c.st.st_mode) && ::fstatfs(c.copy.get(), &fs) == 0 && fs.f_type == kMqueueMagic)
    return unsupported(c, "is a POSIX message queue, which cannot be checkpointed yet");
  TRY(path_in_container(c, env));
  // An open file of /proc/PID belongs to a process, not to a path.
  const std::string_view name = c.link;
  if (c.fd >= 0 && name.starts_with("/proc/") && name.size() > 6 && name[6] >= '0' && name[6] <= '9')
    return fail(Error(Code::kUnsupportedFile, cat(c.name(), " is a /proc file of a process")).about(c.name()));
  return {};
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  auto& reg = *entry.mutable_reg();
  entry.set_type(pb::REG);
  reg.set_id(entry.id());
  reg.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  reg.set_pos(c.info.pos);
  set_no_owner(reg.mutable_fown());
  reg.set_name(TRY(is_deleted(c) ? dump_ghost(c, env, out, entry.id()) : path_in_container(c, env)));
  reg.set_mnt_id(env.mounts && env.mounts->find(c.info.mnt_id) ? c.info.mnt_id : -1);
  if (S_ISREG(c.st.st_mode)) reg.set_size(static_cast<uint64_t>(c.st.st_size));
  reg.set_mode(c.st.st_mode);
  return {};
}

std::unexpected<Error> differs(const pb::reg_file_entry& reg, const std::string& what) {
  return fail(Error(Code::kFileMissing, cat("file ", reg.name(), " ", what)).about(reg.name()));
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  if (!entry.has_reg() || entry.reg().name().empty())
    return fail(Code::kImageCorrupt, cat("files.img: file ", entry.id(), " has no path"));
  const auto& reg = entry.reg();
  // CRIU writes names relative to the root with or without the slash.
  const std::string path = reg.name()[0] == '/' ? reg.name() : "/" + reg.name();
  if (const int given = inherited_fd(env.options, reg.name()); given >= 0) return dup_at_least(given);
  if (env.ghosts)
    if (const auto ghost = env.ghosts->find(entry.id()); ghost != env.ghosts->end())
      return restore_ghost(ghost->second, reg, env);
  struct stat st {};
  if (::lstat(path.c_str(), &st) < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return differs(reg, "is missing");
    return fail_sys("stat", path);
  }
  if (reg.has_mode() && (st.st_mode & S_IFMT) != (reg.mode() & S_IFMT)) return differs(reg, "is of another type now");
  if (reg.has_size() && S_ISREG(st.st_mode) && static_cast<uint64_t>(st.st_size) != reg.size())
    return differs(reg, cat("had ", reg.size(), " bytes when it was checkpointed and has ", st.st_size, " now"));
  // What only acts at open time must not act again.
  const int flags = static_cast<int>(reg.flags()) & ~(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC);
  auto fd = open_at(AT_FDCWD, path, (flags & O_PATH) ? flags : flags | O_NOCTTY);
  if (!fd && fd.error().sys_errno() == ETXTBSY)
    return fail(std::move(fd).error().with_code(Code::kFileMissing).context("the file is being executed"));
  Fd file = TRY(std::move(fd));
  if (!(flags & O_PATH) && !S_ISCHR(st.st_mode) && reg.pos() != 0 &&
      ::lseek(file.get(), static_cast<off_t>(reg.pos()), SEEK_SET) < 0)
    return fail_sys("lseek", path);
  return file;
}

}  // namespace

const FileKind kRegular = {"regular file, directory, memory device", pb::REG, matches, check, dump, restore};

}  // namespace stasis::files
