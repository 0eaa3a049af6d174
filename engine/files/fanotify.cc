// SPDX-License-Identifier: Apache-2.0
// fanotify(7): groups with their marks on inodes, mounts and file systems, all of it told by /proc/PID/fdinfo. On
// restore the path counts, as for inotify. Whoever answers permission events cannot do so while it is frozen, and we
// would wait for it ourselves: marks for such events are refused, and so are events that nobody has read.
#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <tuple>

#include "engine/base/io.h"
#include "engine/files/watched.h"
#include "engine/kernel/syscalls.h"
#include "engine/procfs/fdinfo.h"

#ifndef FAN_MARK_EVICTABLE  // 5.19, 6.0
#define FAN_MARK_EVICTABLE 0x200
#endif
#ifndef FAN_MARK_IGNORE
#define FAN_MARK_IGNORE 0x400
#endif

namespace stasis::files {
namespace {

constexpr uint32_t kAsksLeave = 0x00170000;  // FAN_OPEN_PERM, FAN_ACCESS_PERM, FAN_OPEN_EXEC_PERM, FAN_PRE_ACCESS
constexpr uint32_t kKnownMarkFlags = FAN_MARK_IGNORED_SURV_MODIFY | FAN_MARK_EVICTABLE | FAN_MARK_IGNORE;
constexpr uint32_t kNoMount = ~0u;  // in place of a mount's number: who knows no marks on file systems finds none

bool matches(const Candidate& c) { return c.link == "anon_inode:[fanotify]"; }

struct Group {
  uint32_t flags = 0, event_flags = 0;
};

struct Mark {
  enum class On { kInode, kMount, kFileSystem } on = On::kInode;
  WatchedInode inode;
  uint32_t mount = 0, flags = 0, mask = 0, ignored = 0;
};

std::unexpected<Error> unknown(const Candidate& c, const std::string& line) {
  return unsupported(c, cat("is a fanotify group with a mark of an unknown kind: ", line));
}

Result<Group> group_of(const Candidate& c) {
  for (const auto& line : c.info.rest) {
    const auto flags = watched_number(line, "flags"), event_flags = watched_number(line, "event-flags");
    if (line.starts_with("fanotify ") && flags && event_flags) return Group{*flags, *event_flags};
  }
  return fail(Error(Code::kSystem, cat(c.name(), ": fdinfo does not tell its flags")).about(c.name()));
}

// fs/notify/fdinfo.c fanotify_fdinfo()
Result<Mark> parse_mark(const Candidate& c, const std::string& line) {
  Mark mark;
  const auto inode = parse_watched(line);
  const auto mount = watched_number(line, "mnt_id");
  const auto flags = watched_number(line, "mflags"), mask = watched_number(line, "mask"),
             ignored = watched_number(line, "ignored_mask");
  if (!inode || !flags || !mask || !ignored || (*flags & ~kKnownMarkFlags)) return unknown(c, line);
  if (inode->inode)
    mark.on = Mark::On::kInode;
  else if (mount)
    mark.on = Mark::On::kMount, mark.mount = *mount;
  else if (inode->device)
    mark.on = Mark::On::kFileSystem;
  else
    return unknown(c, line);
  mark.inode = *inode, mark.flags = *flags, mark.mask = *mask, mark.ignored = *ignored;
  return mark;
}

Result<std::vector<Mark>> marks_of(const Candidate& c) {
  std::vector<Mark> out;
  for (const auto& line : c.info.rest)
    if (line.starts_with("fanotify ") && !line.starts_with("fanotify flags:")) out.push_back(TRY(parse_mark(c, line)));
  return out;
}

// Where the mount, or any mount of the file system, is what a path leads to.
Result<std::optional<std::string>> path_of_mount(const DumpEnv& env, const Mark& mark) {
  std::optional<mounts::Table> own;
  if (!env.mounts) own = TRY(mounts::Table::read(env.proc.fd(), cat(env.root_pid)));
  for (const auto& m : (env.mounts ? *env.mounts : *own).mounts) {
    const bool wanted =
        mark.on == Mark::On::kMount ? m.mnt_id == static_cast<int>(mark.mount) : m.s_dev == mark.inode.device;
    const auto top = wanted ? kernel::open_path_in_root(env.root_dir.get(), m.mountpoint) : Result<Fd>(Fd());
    if (!top || !*top) continue;
    if (const auto info = env.proc.fdinfo(::getpid(), top->get()); info && info->mnt_id == m.mnt_id)
      return std::optional(m.mountpoint);
  }
  return std::optional<std::string>();
}

Result<std::string> path_of(const Candidate& c, const DumpEnv& env, const Mark& mark) {
  const bool inode = mark.on == Mark::On::kInode;
  auto path = TRY(inode ? path_of_watched(env, mark.inode) : path_of_mount(env, mark));
  if (path) return *std::move(path);
  const auto what = inode                         ? cat("inode ", mark.inode.inode)
                    : mark.on == Mark::On::kMount ? cat("mount ", mark.mount)
                                                  : std::string("a file system");
  return unsupported(c, cat("is a fanotify group with a mark on ", what,
                            " that has no path in the container (deleted, or on no mount)"));
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  int pending = 0;
  if (::ioctl(c.copy.get(), FIONREAD, &pending) < 0) return fail_sys("ioctl(FIONREAD)", c.name());
  if (pending > 0) return unsupported(c, cat("has fanotify events that were not read (", pending, " bytes)"));
  TRY(group_of(c));
  for (const auto& mark : TRY(marks_of(c))) {
    if (mark.mask & kAsksLeave)
      return unsupported(c,
                         "is a fanotify group with a mark for permission events, which nobody could answer while "
                         "its tasks are frozen");
    TRY(path_of(c, env, mark));
  }
  return {};
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  const auto group = TRY(group_of(c));
  entry.set_type(pb::FANOTIFY);
  auto& ffy = *entry.mutable_ffy();
  ffy.set_id(entry.id());
  ffy.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  set_no_owner(ffy.mutable_fown());
  ffy.set_faflags(group.flags), ffy.set_evflags(group.event_flags);
  pb::fanotify_extra extra;
  extra.set_file_id(entry.id());
  for (const auto& mark : TRY(marks_of(c))) {
    const std::string path = TRY(path_of(c, env, mark));
    if (mark.on == Mark::On::kFileSystem) {
      auto& more = *extra.add_marks();
      more.set_index(static_cast<uint32_t>(ffy.mark_size())), more.set_filesystem(true);
    }
    auto& m = *ffy.add_mark();
    m.set_id(entry.id()), m.set_type(mark.on == Mark::On::kInode ? pb::INODE : pb::MOUNT);
    m.set_mflags(mark.flags), m.set_mask(mark.mask), m.set_ignored_mask(mark.ignored);
    m.set_s_dev(mark.inode.device);
    if (mark.on == Mark::On::kInode) {
      m.mutable_ie()->set_i_ino(mark.inode.inode);
      set_handle(mark.inode, *m.mutable_ie()->mutable_f_handle());
      m.mutable_ie()->mutable_f_handle()->set_path(path);
    } else {
      m.mutable_me()->set_mnt_id(mark.on == Mark::On::kMount ? mark.mount : kNoMount);
      m.mutable_me()->set_path(path);
    }
  }
  if (extra.marks_size()) out.images->add_fanotify_extra(extra);
  return {};
}

const std::string& path_in_image(const pb::fanotify_mark_entry& mark) {
  return mark.type() == pb::INODE ? mark.ie().f_handle().path() : mark.me().path();
}

Result<void> check_image(const pb::file_entry& entry, const FileEntries&, const image::Reader&) {
  if (!entry.has_ffy()) return corrupt_file(entry.id(), "is no fanotify group");
  for (const auto& mark : entry.ffy().mark()) {
    if ((mark.type() == pb::INODE ? !mark.has_ie() : !mark.has_me()) || (mark.mflags() & ~kKnownMarkFlags) ||
        (mark.mask() == 0 && mark.ignored_mask() == 0))
      return corrupt_file(entry.id(), "is a fanotify group with an impossible mark");
    if (!path_in_image(mark).starts_with("/") || path_in_image(mark).find('\0') != std::string::npos)
      return fail(Error(Code::kUnsupportedFile, cat("files.img: a mark of fanotify group ", entry.id(), " has no path"))
                      .about("files.img"));
  }
  return {};
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv&) {
  const auto& ffy = entry.ffy();
  Fd fd(::fanotify_init((ffy.faflags() & ~uint32_t{FAN_NONBLOCK}) | FAN_CLOEXEC, ffy.evflags()));
  if (!fd) return fail_sys(Code::kRestoreFailed, "fanotify_init", cat("flags ", hex(ffy.faflags())));
  TRY(set_flags(fd.get(), ffy.flags(), "fanotify group"));
  return fd;
}

bool is_on_file_system(const RestoreEnv& env, uint32_t file, int index) {
  if (!env.manifest) return false;
  for (const auto& extra : env.manifest->fanotify_extras())
    if (extra.file_id() == file)
      for (const auto& mark : extra.marks())
        if (mark.index() == static_cast<uint32_t>(index) && mark.filesystem()) return true;
  return false;
}

Result<void> add_mark(int fd, const pb::fanotify_mark_entry& mark, bool file_system) {
  const auto& path = path_in_image(mark);
  unsigned how = FAN_MARK_ADD | (mark.mflags() & FAN_MARK_EVICTABLE);
  if (mark.type() == pb::INODE) how |= FAN_MARK_DONT_FOLLOW;
  if (mark.type() == pb::MOUNT) how |= file_system ? FAN_MARK_FILESYSTEM : FAN_MARK_MOUNT;
  unsigned ignore = mark.mflags() & FAN_MARK_IGNORE ? FAN_MARK_IGNORE : FAN_MARK_IGNORED_MASK;
  ignore |= mark.mflags() & FAN_MARK_IGNORED_SURV_MODIFY;
  for (const auto& [flags, mask] : {std::pair{how, mark.mask()}, {how | ignore, mark.ignored_mask()}}) {
    if (mask == 0 || ::fanotify_mark(fd, flags, mask, AT_FDCWD, path.c_str()) == 0) continue;
    if (errno == ENOENT || errno == ENOTDIR)
      return fail(
          Error(Code::kFileMissing, cat("file ", path, ", which is watched with fanotify, is missing")).about(path));
    return fail_sys(Code::kRestoreFailed, "fanotify_mark", path);
  }
  return {};
}

using Shown = std::tuple<uint32_t, uint32_t, uint32_t>;  // flags, mask, ignored mask

// What the kernel has made of it.
Result<std::vector<Shown>> shown_marks(const RestoreEnv& env, int fd) {
  std::vector<Shown> out;
  const std::string text = TRY(read_file_at(env.proc, cat("self/fdinfo/", fd)));
  for (const auto line : split(text, '\n'))
    if (const auto flags = watched_number(line, "mflags"))
      out.emplace_back(*flags, watched_number(line, "mask").value_or(0),
                       watched_number(line, "ignored_mask").value_or(0));
  std::ranges::sort(out);
  return out;
}

Result<void> add_marks(RestoreEnv& env) {
  for (const auto& [id, file] : env.files) {
    if (!file.has_ffy()) continue;
    const int fd = env.numbers.at(id);
    std::vector<Shown> wanted;
    for (int i = 0; i < file.ffy().mark_size(); ++i) {
      const auto& mark = file.ffy().mark(i);
      TRY(add_mark(fd, mark, is_on_file_system(env, id, i)));
      wanted.emplace_back(mark.mflags(), mark.mask(), mark.ignored_mask());
    }
    std::ranges::sort(wanted);
    if (TRY(shown_marks(env, fd)) != wanted)
      return fail(Error(Code::kRestoreFailed, cat("the marks of fanotify group ", id, " cannot be made as they were"))
                      .about(cat("file ", id)));
  }
  return {};
}

}  // namespace

const FileKind kFanotify = {.name = "fanotify",
                            .type = pb::FANOTIFY,
                            .matches = matches,
                            .check = check,
                            .dump = dump,
                            .restore = restore,
                            .connect = add_marks,
                            .check_image = check_image};

}  // namespace stasis::files
