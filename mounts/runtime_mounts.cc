// SPDX-License-Identifier: Apache-2.0
#include "mounts/runtime_mounts.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>

#include "engine/base/io.h"
#include "mounts/content.h"
#include "mounts/walk.h"

namespace stasis::mounts {
namespace {

std::unexpected<Error> differs(const PlannedMount& m, std::string what) {
  return fail(Error(Code::kMountTarget, std::move(what)).about(cat("mount ", m.mountpoint)));
}

bool fits(const PlannedMount& wanted, const Mount& found) {
  return found.mountpoint == wanted.mountpoint &&
         (wanted.from != PlannedMount::From::kStaged || wanted.fstype == found.fstype);
}

Result<Refill> plan_refill(const PlannedMount& m, const StagedFs& fs, const Mount& found, const Table& now) {
  if (!now.reachable(found)) return differs(m, "the runtime covers a tmpfs that has files in the images");
  if (found.root != "/") return differs(m, "the runtime shows only a part of the tmpfs that has files in the images");
  Refill out{found.mnt_id, found.mountpoint, fs.image, {}};
  for (int child : found.children) out.kept.insert(std::string(below(now.mounts[child].mountpoint, found.mountpoint)));
  // runc masks files with the container's own /dev/null.
  for (const Mount* other : now.of_device(found.s_dev))
    if (other->root != "/" && is_clean_path(other->root)) out.kept.insert(other->root.substr(1));
  return out;
}

// Is `path` kept, or on the way to what is?
bool on_the_way(const std::set<std::string>& kept, const std::string& path) {
  const auto at = kept.lower_bound(path);
  if (at != kept.end() && *at == path) return true;
  const auto inside = kept.lower_bound(path + "/");
  return inside != kept.end() && inside->starts_with(path + "/");
}

// Depth is bounded by what the runtime itself put there a moment ago.
Result<void> clear_directory(int dirfd, const std::string& path, const std::set<std::string>& kept) {
  for (const std::string& name : TRY(list_dir(dirfd, "."))) {
    const std::string inner = path.empty() ? name : cat(path, "/", name);
    if (kept.contains(inner)) continue;
    struct stat st;
    if (fstatat(dirfd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return fail_sys("stat", inner);
    if (S_ISDIR(st.st_mode)) {
      const Fd dir = TRY(open_at(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
      TRY(clear_directory(dir.get(), inner, kept));
      if (on_the_way(kept, inner)) continue;
    }
    if (unlinkat(dirfd, name.c_str(), S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) != 0) return fail_sys("remove", inner);
  }
  return {};
}

// runc's tmpfs over a masked directory is read-only as a whole, not only as a mount.
Result<void> set_super_readonly(int dirfd, bool on) {
  Fd fd(fspick(dirfd, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC));
  if (!fd || fsconfig(fd.get(), FSCONFIG_SET_FLAG, on ? "ro" : "rw", nullptr, 0) != 0 ||
      fsconfig(fd.get(), FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr, 0) != 0)
    return fail_sys(on ? "make read-only" : "make writable", "tmpfs");
  return {};
}

}  // namespace

Result<std::vector<Refill>> match_runtime(const RestorePlan& plan, const Table& now) {
  std::vector<Refill> out;
  std::set<int> used, filled;
  for (const auto& m : plan.mounts) {
    const auto found = std::ranges::find_if(
        now.mounts, [&](const Mount& candidate) { return fits(m, candidate) && !used.contains(candidate.mnt_id); });
    if (found == now.mounts.end())
      return differs(m, cat("the images have a ", m.fstype.empty() ? "" : m.fstype + " ",
                            "mount here and the runtime's container has none; add it to the bundle"));
    used.insert(found->mnt_id);
    if (m.from != PlannedMount::From::kStaged || !m.subpath.empty() || !filled.insert(m.staged).second) continue;
    const StagedFs& fs = plan.staged[static_cast<size_t>(m.staged)];
    if (!fs.image.empty()) out.push_back(TRY(plan_refill(m, fs, *found, now)));
  }
  for (size_t i = 0; i < plan.staged.size(); ++i)
    if (!plan.staged[i].image.empty() && !filled.contains(static_cast<int>(i)))
      return fail(Error(Code::kUnsupportedMount, "only a part of this tmpfs is mounted, and its files would be lost")
                      .about(cat("mount ", plan.staged[i].mountpoint)));
  return out;
}

Result<Fd> open_refill(const Refill& refill) {
  // A detached copy, without what is mounted in it; the mount flags are the copy's own.
  Fd alone(open_tree(AT_FDCWD, refill.mountpoint.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!alone) return fail_sys("open_tree", refill.mountpoint);
  mount_attr attr{};
  attr.attr_clr = MOUNT_ATTR_RDONLY;
  if (mount_setattr(alone.get(), "", AT_EMPTY_PATH, &attr, sizeof attr) != 0)
    return fail_sys("mount_setattr", refill.mountpoint);
  return open_at(alone.get(), ".", O_RDONLY | O_DIRECTORY);
}

Result<void> refill(int archive_fd, int dirfd, const Refill& refill) {
  const mode_t mask = umask(0);
  auto done = [&]() -> Result<void> {
    struct statvfs fs;
    if (fstatvfs(dirfd, &fs) != 0) return fail_sys("statvfs");
    const bool readonly = fs.f_flag & ST_RDONLY;
    if (readonly) TRY(set_super_readonly(dirfd, false));
    TRY(clear_directory(dirfd, "", refill.kept));
    TRY(extract_archive(archive_fd, dirfd, true));
    return readonly ? set_super_readonly(dirfd, true) : Result<void>();
  }();
  umask(mask);
  if (!done) return fail(std::move(done).error().context(refill.image).about(cat("mount ", refill.mountpoint)));
  return {};
}

}  // namespace stasis::mounts
