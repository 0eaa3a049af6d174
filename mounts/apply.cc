// SPDX-License-Identifier: Apache-2.0
// Each file system is mounted once in a scratch tmpfs, out of sight; every mount of the container is a bind
// of it (open_tree(2) + move_mount(2) by descriptor), so that neither overmounts nor submounts get in the way.
#include "mounts/apply.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "engine/base/io.h"
#include "mounts/content.h"
#include "mounts/walk.h"

// glibc has it, but declares it nowhere.
extern "C" int pivot_root(const char* new_root, const char* put_old);

namespace stasis::mounts {
namespace {

using From = PlannedMount::From;
constexpr unsigned kDirPath = O_PATH | O_DIRECTORY | O_NOFOLLOW;

std::string about(const std::string& mountpoint) { return cat("mount ", mountpoint); }

Result<Fd> clone_mount(int dirfd, const char* path, unsigned flags = 0) {
  Fd fd(open_tree(dirfd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (*path ? 0 : AT_EMPTY_PATH) | flags));
  if (!fd) return fail_sys("open_tree", path);
  return fd;
}

Result<void> attach(int mount_fd, int target_fd, const char* name) {
  unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | (*name ? 0 : MOVE_MOUNT_T_EMPTY_PATH);
  if (move_mount(mount_fd, "", target_fd, name, flags) != 0) return fail_sys("move_mount");
  return {};
}

// By descriptor: the place may be one that has no path for us.
Result<Fd> new_tmpfs() {
  const Fd context(fsopen("tmpfs", FSOPEN_CLOEXEC));
  if (!context || fsconfig(context.get(), FSCONFIG_SET_STRING, "source", "stasis", 0) != 0 ||
      fsconfig(context.get(), FSCONFIG_SET_STRING, "mode", "700", 0) != 0 ||
      fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return fail_sys("make the scratch tmpfs");
  Fd mount(fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  if (!mount) return fail_sys("fsmount");
  return mount;
}

// mount_setattr(2) came with 5.12; before it, a remount through the descriptor's /proc name.
Result<void> set_flags(int fd, uint32_t flags) {
  mount_attr attr{};
  attr.attr_set = mount_attrs(flags);
  attr.attr_clr = mount_attrs(per_mount_mask() & ~static_cast<uint32_t>(MS_NOATIME | MS_STRICTATIME)) & ~attr.attr_set;
  attr.attr_clr |= MOUNT_ATTR__ATIME;  // must be cleared as a whole to be set
  if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) == 0) return {};
  if (errno != ENOSYS) return fail_sys("mount_setattr");
  std::string path = cat("/proc/self/fd/", fd);
  if (::mount(nullptr, path.c_str(), nullptr, MS_REMOUNT | MS_BIND | flags, nullptr) != 0) return fail_sys("remount");
  return {};
}

Result<void> set_propagation(int fd, uint64_t type) {
  mount_attr attr{};
  attr.propagation = type;
  if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) == 0) return {};
  if (errno != ENOSYS) return fail_sys("mount_setattr");
  std::string path = cat("/proc/self/fd/", fd);
  if (::mount(nullptr, path.c_str(), nullptr, type, nullptr) != 0) return fail_sys("set propagation");
  return {};
}

// A descriptor per mount is held until the end.
void allow_descriptors(size_t count) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= count + 256) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, count + 256);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) log::warning("cannot raise the limit of open files, ignoring");
}

class Builder {
 public:
  Builder(const RestorePlan& plan, const ApplyEnv& env)
      : plan_(plan), env_(env), mounted_(plan.mounts.size()), whole_(plan.mounts.size()) {}

  Result<Applied> run() {
    allow_descriptors(2 * plan_.mounts.size());
    TRY_CTX(cut_off(), "mount namespace");
    TRY(make_scratch());
    for (size_t i = 0; i < plan_.staged.size(); ++i) TRY(stage(static_cast<int>(i)));
    for (int i : by_rank()) TRY(prepare(i));
    for (size_t i = 0; i < plan_.mounts.size(); ++i) TRY(build(static_cast<int>(i)));
    TRY(check_what_came());
    for (size_t i = 0; i < plan_.mounts.size(); ++i) TRY(seal(static_cast<int>(i)));
    for (const auto& fs : plan_.staged) TRY(seal_super(fs));
    TRY_CTX(enter(), "entering the new root");
    for (const auto& step : plan_.propagation) TRY(propagate(step));
    for (size_t i = 0; i < plan_.mounts.size(); ++i) TRY(forbid_binds(static_cast<int>(i)));
    return std::move(applied_);
  }

 private:
  Result<Fd> open_source(const std::string& path, size_t given) const;
  Result<void> open_external(int i, size_t given);
  Result<void> cut_off();
  Result<void> make_scratch();
  Result<void> stage(int i);
  Result<void> fill(const StagedFs& fs, const std::string& name);
  Result<Fd> source(int i);
  Result<bool> take_what_came(int i, Fd& place);
  Result<void> check_what_came() const;
  std::vector<int> by_rank() const;
  std::unexpected<Error> named(int i, Error error) const;
  Result<void> prepare(int i);
  Result<void> build(int i);
  Result<Fd> target(int i, bool want_dir);
  Result<Fd> make_target(int dirfd, const PlannedMount& m, const std::string& name, bool want_dir);
  Result<void> open_pty(const StagedFs& fs, uint32_t index);
  Result<void> seal(int i);
  Result<void> seal_super(const StagedFs& fs);
  Result<void> enter();
  Result<void> propagate(const PropagationStep& step);
  Result<void> forbid_binds(int i);
  std::string staged_name(const StagedFs& fs) const { return cat("fs", &fs - plan_.staged.data()); }

  const RestorePlan& plan_;
  const ApplyEnv& env_;
  Fd scratch_, base_;        // tmpfs for staging; the new root directory without submounts
  std::vector<Fd> staged_;   // roots of plan_.staged
  std::vector<Fd> mounted_;  // of plan_.mounts: an external's source, then the bind, then the mount
  std::vector<bool> whole_;  // of plan_.mounts: came with all that is mounted in it
  Applied applied_;
};

// Found now, before anything can hide it; bound in its turn. What is to stay a peer of its source is bound now.
Result<void> Builder::open_external(int i, size_t given) {
  const PlannedMount& m = plan_.mounts[i];
  auto fd = open_source(m.host_path, given);
  if (fd && m.outer_sharing) fd = clone_mount(fd->get(), "");
  if (!fd)
    return fail(std::move(fd)
                    .error()
                    .context("source of an external mount")
                    .with_code(Code::kMountTarget)
                    .about(about(m.mountpoint)));
  mounted_[i] = *std::move(fd);
  return {};
}

Result<Fd> Builder::open_source(const std::string& path, size_t given) const {
  if (env_.sources.empty()) return open_at(AT_FDCWD, path, O_PATH);
  if (given >= env_.sources.size()) return fail(Code::kInternal, "too few sources of mounts");
  return dup_at_least(env_.sources[given].get());
}

// Then the whole namespace is cut down to slaves of the engine's.
Result<void> Builder::cut_off() {
  size_t given = 0;
  for (size_t i = 0; i < plan_.mounts.size(); ++i)
    if (plan_.mounts[i].from == From::kExternal) TRY(open_external(static_cast<int>(i), ++given));
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return fail_sys("make-rslave");
  auto base = open_source(env_.root_source.empty() ? "/" : env_.root_source, 0);
  if (base) base = clone_mount(base->get(), "");
  if (!base) return fail(std::move(base).error().with_code(Code::kMountTarget).about(about("/")));
  base_ = *std::move(base);
  return {};
}

// On top of the root directory's old place; that is not looked at any more.
Result<void> Builder::make_scratch() {
  std::vector<std::string> places{env_.root_source};
  if (env_.root_source.empty() || env_.root_source == "/") places = {"/run", "/tmp", "/mnt", "/var"};
  scratch_ = TRY(new_tmpfs());
  Result<void> done;
  for (size_t i = 0; i < places.size() && (i == 0 || !done); ++i) {
    const auto place = open_source(places[i], 0);
    done = place ? attach(scratch_.get(), place->get(), "") : fail(place.error());
  }
  if (!done) return fail(std::move(done).error().context("mount the scratch tmpfs"));
  // From here on relative names are names in the scratch file system.
  if (fchdir(scratch_.get()) != 0 || mkdir("base", 0700) != 0 || mkdir("root", 0700) != 0) return fail_sys("scratch");
  TRY_CTX(set_propagation(scratch_.get(), MS_PRIVATE), "scratch");
  return attach(base_.get(), scratch_.get(), "base");
}

Result<void> Builder::fill(const StagedFs& fs, const std::string& name) {
  Fd image = TRY(env_.open_content(fs.image));
  Fd dir = TRY(open_at(scratch_.get(), name, O_RDONLY | O_DIRECTORY));
  TRY_CTX(extract_archive(image.get(), dir.get()), fs.image);
  return {};
}

Result<void> Builder::stage(int i) {
  const StagedFs& fs = plan_.staged[i];
  std::string name = staged_name(fs);
  if (mkdir(name.c_str(), 0700) != 0) return fail_sys("mkdir", name);
  // What is to be filled is made read-only later.
  uint32_t flags = fs.image.empty() ? fs.flags : fs.flags & ~static_cast<uint32_t>(MS_RDONLY);
  if (::mount(fs.source.c_str(), name.c_str(), fs.fstype.c_str(), flags, fs.data.c_str()) != 0) {
    Error error = Error::sys(Code::kRestoreFailed, cat("mount a ", fs.fstype, " file system with \"", fs.data, "\""));
    return fail(std::move(error).about(about(fs.mountpoint)));
  }
  staged_.push_back(TRY(open_at(scratch_.get(), name, kDirPath)));
  TRY(set_propagation(staged_.back().get(), MS_PRIVATE));
  if (fs.image.empty()) return {};
  if (auto ok = fill(fs, name); !ok) return fail(std::move(ok).error().about(about(fs.mountpoint)));
  return {};
}

Result<void> Builder::open_pty(const StagedFs& fs, uint32_t index) {
  for (const auto& pty : applied_.ptys)
    if (pty.s_dev == fs.s_dev && pty.index == index) return {};
  const int top = staged_[&fs - plan_.staged.data()].get();
  applied_.ptys.push_back({fs.s_dev, index, TRY(open_master(top, "ptmx", index, applied_.unused[fs.s_dev]))});
  return {};
}

// A detached bind of what mount `i` shows.
Result<Fd> Builder::source(int i) {
  const PlannedMount& m = plan_.mounts[i];
  if (m.outer_sharing) return std::move(mounted_[i]);
  if (m.from == From::kExternal) {
    auto alone = clone_mount(mounted_[i].get(), "");
    // The host's mounts inside it hide what a user namespace must not see (MNT_LOCKED, mount_namespaces(7)).
    if (alone || alone.error().sys_errno() != EINVAL || env_.sources.empty()) return alone;
    whole_[i] = true;
    return clone_mount(mounted_[i].get(), "", AT_RECURSIVE);
  }
  int top = base_.get();
  if (m.from == From::kStaged) {
    const StagedFs& fs = plan_.staged[m.staged];
    top = staged_[m.staged].get();
    if (fs.cls == FsClass::kInstance)
      if (auto index = parse_int<uint32_t>(m.subpath)) TRY(open_pty(fs, *index));
  }
  if (m.subpath.empty()) return clone_mount(top, "");
  Fd at = TRY_CTX(walk_path(top, m.subpath), "source of the bind");
  return clone_mount(at.get(), "");
}

Result<Fd> Builder::make_target(int dirfd, const PlannedMount& m, const std::string& name, bool want_dir) {
  bool ours = plan_.mounts[m.parent].from != From::kExternal;
  if (!ours) return fail(Code::kMountTarget, cat("its mountpoint is missing in an external mount"));
  int rc = want_dir ? mkdirat(dirfd, name.c_str(), 0755) : mknodat(dirfd, name.c_str(), S_IFREG | 0644, 0);
  if (rc != 0) return fail_sys(Code::kMountTarget, "create its mountpoint");
  return open_at(dirfd, name, O_PATH | O_NOFOLLOW);
}

// Where to put it: walked from the parent's root without following links, so in the parent itself and nowhere else.
Result<Fd> Builder::target(int i, bool want_dir) {
  const PlannedMount& m = plan_.mounts[i];
  if (m.parent < 0) return open_at(scratch_.get(), "root", kDirPath);
  const PlannedMount& parent = plan_.mounts[m.parent];
  std::string rest(below(m.mountpoint, parent.mountpoint));
  Fd here = TRY(dup_at_least(mounted_[m.parent].get()));
  if (rest.empty()) return here;
  for (auto part : split(rest, '/')) {
    std::string name(part);
    auto next = open_at(here.get(), name, O_PATH | O_NOFOLLOW);
    if (!next && next.error().sys_errno() == ENOENT)
      next = make_target(here.get(), m, name, want_dir || part.data() + part.size() != rest.data() + rest.size());
    here = TRY(std::move(next));
  }
  return here;
}

// mountinfo lists mounts in the order in which they were made, and so does the image.
std::vector<int> Builder::by_rank() const {
  std::vector<int> order(plan_.mounts.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](int i) { return plan_.mounts[i].rank; });
  return order;
}

// What went wrong with mount `i`; a name that does not exist is a missing source or target.
std::unexpected<Error> Builder::named(int i, Error error) const {
  Code code = error.code() == Code::kNotFound ? Code::kMountTarget : error.code();
  return fail(std::move(error).with_code(code).about(about(plan_.mounts[i].mountpoint)));
}

Result<void> Builder::prepare(int i) {
  const PlannedMount& m = plan_.mounts[i];
  auto fd = source(i);
  if (!fd) return named(i, std::move(fd).error());
  if (!m.outer_master && !m.outer_sharing)
    if (auto ok = set_propagation(fd->get(), MS_PRIVATE); !ok) return named(i, std::move(ok).error());
  mounted_[i] = *std::move(fd);
  return {};
}

Result<void> Builder::build(int i) {
  auto put = [&]() -> Result<void> {
    bool dir = TRY(is_directory(mounted_[i].get()));
    Fd place = TRY_CTX(target(i, dir), "mountpoint");
    if (TRY(take_what_came(i, place))) return {};
    if (TRY(is_directory(place.get())) != dir)
      return fail(Code::kMountTarget, dir ? "its mountpoint is not a directory" : "its mountpoint is a directory");
    return attach(mounted_[i].get(), place.get(), "");
  };
  if (auto ok = put(); !ok) return named(i, std::move(ok).error());
  return {};
}

// A mount of the container that came with the one it is in.
Result<bool> Builder::take_what_came(int i, Fd& place) {
  const PlannedMount& m = plan_.mounts[i];
  if (m.parent < 0 || !whole_[m.parent] || m.from != From::kExternal) return false;
  struct statx there, wanted;
  if (statx(place.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS, &there) != 0 ||
      statx(mounted_[i].get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS, &wanted) != 0)
    return fail_sys("statx", m.mountpoint);
  const bool same = there.stx_dev_major == wanted.stx_dev_major && there.stx_dev_minor == wanted.stx_dev_minor &&
                    there.stx_ino == wanted.stx_ino;
  if (!same || !(there.stx_attributes & STATX_ATTR_MOUNT_ROOT)) return false;
  mounted_[i] = std::move(place);
  whole_[i] = true;
  TRY(set_propagation(mounted_[i].get(), MS_PRIVATE));
  return true;
}

// Nothing came along that the container did not have.
Result<void> Builder::check_what_came() const {
  if (std::ranges::find(whole_, true) == whole_.end()) return {};
  std::set<int> ours;
  for (const Fd& fd : mounted_) {
    struct statx sx;
    if (statx(fd.get(), "", AT_EMPTY_PATH, STATX_MNT_ID, &sx) != 0) return fail_sys("statx");
    ours.insert(static_cast<int>(sx.stx_mnt_id));
  }
  const Fd proc = TRY(open_at(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY));
  const Table now = TRY(Table::read(proc.get(), "self"));
  for (const Mount& m : now.mounts) {
    if (ours.contains(m.mnt_id) || m.parent < 0 || !ours.contains(now.mounts[m.parent].mnt_id)) continue;
    return fail(Error(Code::kMountTarget, cat("a mount of the host, ", m.root, " (", m.fstype,
                                              "), is inside the source of an external mount, and a user namespace "
                                              "cannot have the one without the other"))
                    .about(about(m.mountpoint)));
  }
  return {};
}

// Flags come last, because a read-only parent would not let mountpoints be made.
Result<void> Builder::seal(int i) {
  if (auto ok = set_flags(mounted_[i].get(), plan_.mounts[i].flags); !ok) return named(i, std::move(ok).error());
  return {};
}

Result<void> Builder::seal_super(const StagedFs& fs) {
  if (fs.image.empty() || !(fs.flags & MS_RDONLY)) return {};
  Fd fd(fspick(scratch_.get(), staged_name(fs).c_str(), FSPICK_CLOEXEC));
  if (!fd || fsconfig(fd.get(), FSCONFIG_SET_FLAG, "ro", nullptr, 0) != 0 ||
      fsconfig(fd.get(), FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr, 0) != 0)
    return fail(Error::sys("make the file system read-only").about(about(fs.mountpoint)));
  return {};
}

// pivot_root(2), NOTES: with "." twice the old root ends up on top of the new one, and can be taken off.
Result<void> Builder::enter() {
  if (fchdir(mounted_[0].get()) != 0) return fail_sys("fchdir");
  if (pivot_root(".", ".") != 0) return fail_sys("pivot_root");
  if (umount2(".", MNT_DETACH) != 0) return fail_sys("umount of the old root");
  if (chdir("/") != 0) return fail_sys("chdir", "/");
  return {};
}

Result<void> Builder::propagate(const PropagationStep& step) {
  const PlannedMount& m = plan_.mounts[step.mount];
  int fd = mounted_[step.mount].get();
  auto set = [&]() -> Result<void> {
    if (step.join >= 0 && !m.outer_sharing) {
      TRY(set_propagation(fd, MS_PRIVATE));
      constexpr unsigned kFlags = MOVE_MOUNT_SET_GROUP | MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
      if (move_mount(mounted_[step.join].get(), "", fd, "", kFlags) != 0)
        return fail(errno == EINVAL ? Error::sys(Code::kKernelFeature, "MOVE_MOUNT_SET_GROUP (Linux 5.15)")
                                    : Error::sys("join a peer group"));
    }
    if (step.slave) TRY(set_propagation(fd, MS_SLAVE));
    if (step.shared) TRY(set_propagation(fd, MS_SHARED));
    return {};
  };
  if (auto ok = set(); !ok) return named(step.mount, std::move(ok).error());
  return {};
}

Result<void> Builder::forbid_binds(int i) {
  if (!plan_.mounts[i].unbindable) return {};
  if (auto ok = set_propagation(mounted_[i].get(), MS_UNBINDABLE); !ok) return named(i, std::move(ok).error());
  return {};
}

}  // namespace

Result<Applied> apply(const RestorePlan& plan, const ApplyEnv& env) {
  mode_t mask = umask(0);
  auto applied = Builder(plan, env).run();
  umask(mask);
  return applied;
}

}  // namespace stasis::mounts
