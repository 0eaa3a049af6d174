// SPDX-License-Identifier: Apache-2.0
// Files found by their path: regular files, directories, memory devices (null, zero, full,
// random, urandom), the kernel's log, block devices and O_PATH descriptors. The image has no contents, only the path,
// which must lead to the same file in the restored mount namespace. open(2), proc(5).
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/files/build_id.h"
#include "engine/files/external_file.h"
#include "engine/files/kind.h"
#include "engine/files/proc_path.h"
#include "engine/kernel/syscalls.h"

namespace stasis::files {
namespace {

constexpr std::string_view kDeleted = " (deleted)";

// major 1: mem(4). The device behind the node is the same everywhere.
bool is_memory_device(const struct stat& st) {
  if (!S_ISCHR(st.st_mode) || major(st.st_rdev) != 1) return false;
  const unsigned m = minor(st.st_rdev);
  return m == 3 || m == 5 || m == 7 || m == 8 || m == 9;
}

bool is_kernel_log(const struct stat& st) { return S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 11); }

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
  if (c.info.flags & O_PATH) return c.link.starts_with("/");
  // The file systems whose files have no lasting path have links without a leading slash.
  return c.link.starts_with("/") && !c.link.starts_with("/memfd:") &&
         (S_ISREG(c.st.st_mode) || S_ISDIR(c.st.st_mode) || S_ISBLK(c.st.st_mode) || is_memory_device(c.st) ||
          is_kernel_log(c.st));
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

bool leads_to(const DumpEnv& env, const std::string& path, const struct stat& st) {
  const auto found = stat_in_container(env, path);
  return found && same_file(*found, st);
}

// A directory may be called "x (deleted)".
static bool is_ghost(const Candidate& c, const DumpEnv& env) {
  return is_deleted(c) && (c.st.st_nlink == 0 || !leads_to(env, c.link, c.st));
}

Result<std::string> path_in_container(const Candidate& c, const DumpEnv& env) {
  if (is_ghost(c, env)) return check_ghost(c, env);
  // A current or root directory cannot wait until the process is there.
  if (c.fd < 0 && of_process(c.link))
    return fail(
        Error(Code::kUnsupportedFile, cat(c.name(), " is in the /proc directory of a process")).about(c.name()));
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
  if (c.link.ends_with(" (deleted)") && !S_ISDIR(c.st.st_mode)) return find_other_name(c, env);
  return fail(Error(Code::kUnsupportedFile,
                    cat(c.name(), " cannot be found by its path any more (renamed, replaced or mounted over)"))
                  .about(c.name()));
}

namespace {

// Which message of the kernel's log comes next is told by nothing, but that there is none: the restored one waits for
// the next, too.
Result<void> check_device(const Candidate& c) {
  if (!is_kernel_log(c.st) || (c.info.flags & O_PATH) || (c.info.flags & O_ACCMODE) == O_WRONLY) return {};
  pollfd poll{c.copy.get(), POLLIN, 0};
  if (::poll(&poll, 1, 0) < 0) return fail_sys("poll", c.name());
  if (poll.revents & POLLIN) return unsupported(c, "has messages of the kernel's log not yet read");
  return {};
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  if (external_name(c, env.options)) return {};
  TRY(check_device(c));
  if (of_process(c.link) && (c.link.ends_with(kDeleted) || !stat_in_container(env, c.link)))
    return fail(
        Error(Code::kUnsupportedFile, cat(c.name(), " is a /proc file of a process that has ended")).about(c.name()));
  TRY(path_in_container(c, env));
  return {};
}

// What tells the file from another that may be in its place.
void note_build(const Candidate& c, const DumpEnv& env, pb::reg_file_entry& reg) {
  if (!env.options.build_ids || !S_ISREG(c.st.st_mode) || !(c.st.st_mode & 0111)) return;
  const auto file = open_at(AT_FDCWD, cat("/proc/self/fd/", c.copy.get()), O_RDONLY | O_NONBLOCK | O_NOATIME);
  if (!file) return;
  for (const uint32_t word : build_id_of(file->get())) reg.add_build_id(word);
}

// Where the time of the last change says something, and comes back: not of what the kernel makes up, or we write.
bool has_lasting_mtime(const Candidate& c) {
  struct statfs fs {};
  if (!S_ISREG(c.st.st_mode) || ::fstatfs(c.copy.get(), &fs) < 0) return false;
  const auto type = static_cast<uint32_t>(fs.f_type);
  return type != PROC_SUPER_MAGIC && type != SYSFS_MAGIC && type != CGROUP_SUPER_MAGIC && type != CGROUP2_SUPER_MAGIC &&
         type != TMPFS_MAGIC && type != DEBUGFS_MAGIC && type != TRACEFS_MAGIC && type != SECURITYFS_MAGIC;
}

// The name that a file with others was opened by, and when it was changed.
void note_more(const Candidate& c, const DumpEnv& env, const pb::file_entry& entry, DumpOutput& out) {
  pb::file_extra extra;
  extra.set_file_id(entry.id());
  if (c.link.ends_with(kDeleted) && entry.reg().name() != c.link)
    extra.set_removed_name(c.link.substr(0, c.link.size() - kDeleted.size()));
  if (env.options.mtimes && has_lasting_mtime(c)) {
    extra.set_mtime_sec(c.st.st_mtim.tv_sec);
    extra.set_mtime_nsec(static_cast<uint32_t>(c.st.st_mtim.tv_nsec));
  }
  if (S_ISBLK(c.st.st_mode)) extra.set_device(major(c.st.st_rdev) << 20 | minor(c.st.st_rdev));
  if (extra.has_removed_name() || extra.has_mtime_sec() || extra.has_device()) out.images->add_file_extra(extra);
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  auto& reg = *entry.mutable_reg();
  entry.set_type(pb::REG);
  reg.set_id(entry.id());
  reg.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  reg.set_pos(c.info.pos);
  set_no_owner(reg.mutable_fown());
  if (auto name = external_name(c, env.options)) {
    reg.set_name(*std::move(name)), reg.set_ext(true);
    return {};
  }
  const bool ghost = is_ghost(c, env);
  reg.set_name(TRY(ghost ? dump_ghost(c, env, out, entry.id()) : path_in_container(c, env)));
  if (!ghost) note_more(c, env, entry, out);
  if (!ghost) note_build(c, env, reg);
  reg.set_mnt_id(env.mounts && env.mounts->find(c.info.mnt_id) ? c.info.mnt_id : -1);
  if (S_ISREG(c.st.st_mode)) reg.set_size(static_cast<uint64_t>(c.st.st_size));
  reg.set_mode(c.st.st_mode);
  return {};
}

std::string octal(unsigned mode) {
  char text[16];
  std::snprintf(text, sizeof text, "%o", mode);
  return text;
}

std::unexpected<Error> differs(const pb::reg_file_entry& reg, const std::string& what) {
  return fail(Error(Code::kFileMissing, cat("file ", reg.name(), " ", what)).about(reg.name()));
}

// Whether what is there now is what was open.
Result<void> compare(const pb::reg_file_entry& reg, const pb::file_extra* extra, const std::string& path,
                     const struct stat& st, bool modes) {
  if (reg.has_mode() && (st.st_mode & S_IFMT) != (reg.mode() & S_IFMT)) return differs(reg, "is of another type now");
  if (extra && extra->has_device() && (major(st.st_rdev) << 20 | minor(st.st_rdev)) != extra->device())
    return differs(reg, "is another device now");
  if (!S_ISREG(st.st_mode)) return {};
  if (reg.has_size() && static_cast<uint64_t>(st.st_size) != reg.size())
    return differs(reg, cat("had ", reg.size(), " bytes when it was checkpointed and has ", st.st_size, " now"));
  if (modes && reg.has_mode() && (st.st_mode & 07777) != (reg.mode() & 07777))
    return differs(reg, cat("had mode 0", octal(reg.mode() & 07777), " when it was checkpointed and has 0",
                            octal(st.st_mode & 07777), " now"));
  if (extra && extra->has_mtime_sec() &&
      (st.st_mtim.tv_sec != extra->mtime_sec() || st.st_mtim.tv_nsec != static_cast<long>(extra->mtime_nsec())))
    return differs(reg, "was changed after it was checkpointed (mtime)");
  if (reg.build_id_size() == 0) return {};
  const auto file = open_at(AT_FDCWD, path, O_RDONLY | O_NONBLOCK);
  if (!file) return {};  // what can only be executed cannot be compared
  const auto id = build_id_of(file->get());
  if (!std::ranges::equal(id, reg.build_id())) return differs(reg, "is another build than was checkpointed (build id)");
  return {};
}

// By the name that was removed, if it can be had for a moment: else by the other, which is the same file.
Result<Fd> open_renamed(const std::string& path, const std::string& removed, int flags) {
  const auto slash = removed.rfind('/');
  for (const auto& name : {removed, cat(removed.substr(0, slash), "/.stasis-deleted")}) {
    if (::linkat(AT_FDCWD, path.c_str(), AT_FDCWD, name.c_str(), 0) < 0) continue;
    auto fd = open_at(AT_FDCWD, name, flags);
    if (::unlink(name.c_str()) < 0) return fail_sys("unlink", name);
    return fd;
  }
  log::debug("file ", removed, " (deleted) is opened as ", path);
  return open_at(AT_FDCWD, path, flags);
}

Result<Fd> open_existing(const pb::file_entry& entry, const std::string& path, int flags, const RestoreEnv& env) {
  if (const auto* extra = find_file_extra(env.manifest, entry.id()); extra && extra->removed_name().starts_with("/"))
    return open_renamed(path, extra->removed_name(), flags);
  return open_at(AT_FDCWD, path, flags);
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  if (!entry.has_reg() || entry.reg().name().empty())
    return fail(Code::kImageCorrupt, cat("files.img: file ", entry.id(), " has no path"));
  const auto& reg = entry.reg();
  // CRIU writes names relative to the root with or without the slash.
  const std::string path = reg.name()[0] == '/' ? reg.name() : "/" + reg.name();
  if (const int given = inherited_fd(env.options, reg.name()); given >= 0) return dup_at_least(given);
  const auto* extra = find_file_extra(env.manifest, entry.id());
  if (extra && extra->has_queue()) return restore_posix_queue(entry, extra->queue(), env);
  if (env.ghosts)
    if (const auto ghost = env.ghosts->find(entry.id()); ghost != env.ghosts->end())
      return restore_ghost(ghost->second, reg, env);
  // For each task when all processes are there; see open_of_process().
  if (of_process(path)) return open_at(AT_FDCWD, "/", O_PATH);
  struct stat st {};
  if (::lstat(path.c_str(), &st) < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return differs(reg, "is missing");
    return fail_sys("stat", path);
  }
  TRY(compare(reg, extra, path, st, env.options.compare_modes));
  // What only acts at open time must not act again.
  const int flags = static_cast<int>(reg.flags()) & ~(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC);
  // Of a named pipe there is another entry, which opens what this one finds.
  if (S_ISFIFO(st.st_mode) && !(flags & O_PATH)) return open_at(AT_FDCWD, path, O_PATH | O_NOFOLLOW);
  auto fd = open_existing(entry, path, (flags & O_PATH) ? flags : flags | O_NOCTTY, env);
  if (!fd && fd.error().sys_errno() == ETXTBSY)
    return fail(std::move(fd).error().with_code(Code::kFileMissing).context("the file is being executed"));
  Fd file = TRY(std::move(fd));
  if (!(flags & O_PATH) && is_kernel_log(st) && (flags & O_ACCMODE) != O_WRONLY && ::lseek(file.get(), 0, SEEK_END) < 0)
    return fail_sys("lseek", path);
  if (!(flags & O_PATH) && !S_ISCHR(st.st_mode) && reg.pos() != 0 &&
      ::lseek(file.get(), static_cast<off_t>(reg.pos()), SEEK_SET) < 0)
    return fail_sys("lseek", path);
  return file;
}

// What was opened of /proc/PID by one task cannot be shared by others: each process opens its own.
Result<void> check_shared(const DumpEnv&, DumpOutput& out) {
  std::map<uint32_t, pid_t> owner;
  for (const auto& file : out.files)
    if (file.has_reg() && of_process(file.reg().name())) owner[file.id()] = 0;
  for (const auto& d : out.descriptors) {
    const auto at = owner.find(d.id);
    if (at == owner.end()) continue;
    if (at->second != 0 && at->second != d.pid)
      return fail(Error(Code::kUnsupportedFile, cat("pid ", at->second, " and pid ", d.pid, " (fd ", d.fd,
                                                    ") share an open /proc file of a process"))
                      .about(cat("pid ", d.pid, " fd ", d.fd)));
    at->second = d.pid;
  }
  return {};
}

// What the next open of the task gives.
Result<int> lowest_free(const std::vector<pb::fdinfo_entry>& fds, const RestoreEnv& env) {
  std::set<int> used;
  for (const auto& e : fds) used.insert(static_cast<int>(e.fd()));
  int lowest = 0;
  while (used.contains(lowest)) ++lowest;
  for (const auto& [id, number] : env.numbers)
    if (number <= lowest) return fail(Code::kRlimit, cat("descriptor ", lowest, " is not free"));
  return lowest;
}

Result<void> open_of_process(uint32_t, const std::vector<pb::fdinfo_entry>& fds, const RestoreEnv& env,
                             remote::Batch& batch) {
  std::map<uint32_t, std::vector<const pb::fdinfo_entry*>> wanted;
  for (const auto& e : fds) {
    const auto file = env.files.find(e.id());
    if (file == env.files.end() || !file->second.has_reg()) continue;
    const auto& name = file->second.reg().name();
    if (of_process(name) && inherited_fd(env.options, name) < 0) wanted[e.id()].push_back(&e);
  }
  if (wanted.empty()) return {};
  const int number = TRY(lowest_free(fds, env));
  for (const auto& [id, entries] : wanted) {
    const auto& reg = env.files.at(id).reg();
    const int flags = static_cast<int>(reg.flags()) & ~(O_CREAT | O_EXCL | O_TRUNC);
    batch.add(__NR_openat, AT_FDCWD, batch.text(reg.name()), flags | O_CLOEXEC);
    batch.must(cat("open ", reg.name()));
    if (reg.pos() != 0 && !(flags & O_PATH)) {
      batch.add(__NR_lseek, number, reg.pos(), SEEK_SET);
      batch.must(cat("lseek ", reg.name()));
    }
    for (const auto* e : entries) {
      batch.add(__NR_dup3, number, e->fd(), e->flags() & FD_CLOEXEC ? O_CLOEXEC : 0);
      batch.must(cat("dup3 of ", reg.name()));
    }
    batch.add(__NR_close, number);
    batch.must(cat("close ", reg.name()));
  }
  return {};
}

}  // namespace

const FileKind kRegular = {"regular file, directory, memory device, path",
                           pb::REG,
                           matches,
                           check,
                           dump,
                           restore,
                           check_shared,
                           nullptr,
                           nullptr,
                           open_of_process};

}  // namespace stasis::files
