// SPDX-License-Identifier: Apache-2.0
#include "cgroups/hierarchy.h"

#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/procfs/cgroup.h"
#include "engine/procfs/mountinfo.h"

namespace stasis::cgroups {

namespace {

bool mounts_whole(const procfs::MountInfo& mount, const Hierarchy& hierarchy) {
  if (mount.root != "/") return false;
  if (hierarchy.unified) return mount.fstype == "cgroup2";
  if (mount.fstype != "cgroup") return false;
  const auto options = split(mount.super_options, ',');
  return std::ranges::all_of(hierarchy.controllers, [&](const std::string& name) {
    return std::ranges::find(options, std::string_view(name)) != options.end();
  });
}

// Something mounted right on top of it, such as a bind of a directory of the same hierarchy.
bool is_covered(const procfs::MountInfo& mount, const std::vector<procfs::MountInfo>& all) {
  return std::ranges::any_of(all, [&](const procfs::MountInfo& other) {
    return other.parent_id == mount.mnt_id && other.mountpoint == mount.mountpoint;
  });
}

bool is_mount(int fd, int mount_id) {
  struct statx st {};
  return ::statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) == 0 && (st.stx_mask & STATX_MNT_ID) &&
         st.stx_mnt_id == static_cast<uint64_t>(mount_id);
}

bool is_cgroup_fs(int fd, bool unified) {
  struct statfs fs {};
  if (::fstatfs(fd, &fs) < 0) return false;
  return fs.f_type == (unified ? CGROUP2_SUPER_MAGIC : CGROUP_SUPER_MAGIC);
}

// A mount attached nowhere; it goes away with its descriptor.
Result<Fd> mount_privately(const Hierarchy& hierarchy) {
  const char* type = hierarchy.unified ? "cgroup2" : "cgroup";
  Fd context(::fsopen(type, FSOPEN_CLOEXEC));
  if (!context) return fail_sys("fsopen", type);
  const auto set = [&](unsigned command, const char* key, const char* value) -> Result<void> {
    if (::fsconfig(context.get(), command, key, value, 0) < 0) return fail_sys(cat("fsconfig of ", type), key);
    return {};
  };
  bool real = false;
  for (const std::string& name : hierarchy.controllers) {
    if (name.starts_with("name=")) {
      TRY(set(FSCONFIG_SET_STRING, "name", name.c_str() + 5));
    } else {
      TRY(set(FSCONFIG_SET_FLAG, name.c_str(), nullptr));
      real = true;
    }
  }
  if (!hierarchy.unified && !real) TRY(set(FSCONFIG_SET_FLAG, "none", nullptr));
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) < 0)
    return fail_sys(Code::kCgroup, "mount the hierarchy", hierarchy.name());
  Fd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  if (!mount) return fail_sys(Code::kCgroup, "fsmount the hierarchy", hierarchy.name());
  return mount;
}

Fd open_in_yard(const std::string& yard, const Hierarchy& hierarchy) {
  std::string name = hierarchy.unified ? std::string("unified") : hierarchy.name();
  if (name.starts_with("name=")) name.erase(0, 5);
  for (const std::string& dir : {yard + "/" + name, yard}) {
    if (dir == yard && !hierarchy.unified) break;  // only a pure v2 yard is itself the hierarchy
    auto fd = open_at(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY);
    if (fd && is_cgroup_fs(fd->get(), hierarchy.unified)) return *std::move(fd);
  }
  return Fd();
}

Result<Fd> open_root(const Hierarchy& hierarchy, const std::string& yard) {
  if (!yard.empty()) {
    Fd fd = open_in_yard(yard, hierarchy);
    if (fd) return fd;
    log::debug("cgroup yard ", yard, " has no ", hierarchy.name(), ", looking for a mount");
  }
  if (!hierarchy.mount_point.empty()) {
    // Something else may be mounted over a directory above it.
    auto fd = open_at(AT_FDCWD, hierarchy.mount_point, O_RDONLY | O_DIRECTORY);
    if (fd && is_mount(fd->get(), hierarchy.mount_id)) return *std::move(fd);
  }
  return mount_privately(hierarchy);
}

void read_unified_controllers(Hierarchy& hierarchy, int root) {
  if (!hierarchy.unified) return;
  const auto text = read_file_at(root, "cgroup.controllers");
  if (!text) return;
  hierarchy.unified_controllers.clear();
  for (std::string_view name : fields(trim(*text))) hierarchy.unified_controllers.emplace_back(name);
}

Result<Membership> to_membership(const std::vector<procfs::CgroupLine>& found, const std::string& task) {
  Membership out;
  for (const auto& line : found) {
    if (line.path == "/.." || line.path.starts_with("/../"))
      return fail(Error(Code::kCgroup, cat("cgroup ", join(line.controllers, ","), ":", line.path, " of ", task,
                                           " is outside the engine's cgroup namespace"))
                      .about(task));
    out[join(line.controllers, ",")] = line.path;
  }
  return out;
}

}  // namespace

bool Hierarchy::has(std::string_view controller) const {
  return std::ranges::find(controllers, controller) != controllers.end();
}

std::vector<std::string> controller_names(std::string_view hierarchy_name) {
  std::vector<std::string> out;
  for (std::string_view name : split(hierarchy_name, ',')) out.emplace_back(name);
  return out;
}

Result<std::vector<Hierarchy>> parse_hierarchies(std::string_view self_cgroup, std::string_view self_mountinfo) {
  const auto mounts = TRY(procfs::parse_mountinfo(self_mountinfo));
  const auto found = TRY(procfs::parse_cgroup(self_cgroup));
  std::vector<Hierarchy> out;
  for (const auto& line : found) {
    Hierarchy hierarchy{.controllers = line.controllers, .unified = line.unified()};
    for (const auto& mount : mounts) {
      if (!mounts_whole(mount, hierarchy) || is_covered(mount, mounts)) continue;
      hierarchy.mount_point = mount.mountpoint;
      hierarchy.mount_id = mount.mnt_id;
      break;
    }
    out.push_back(std::move(hierarchy));
  }
  return out;
}

Result<std::vector<Hierarchy>> read_hierarchies() {
  const std::string self = TRY(procfs::read_self_cgroup_text());
  auto list = TRY(parse_hierarchies(self, TRY(procfs::read_self_mountinfo())));
  for (Hierarchy& hierarchy : list) {
    if (!hierarchy.unified || hierarchy.mount_point.empty()) continue;
    const auto root = open_at(AT_FDCWD, hierarchy.mount_point, O_RDONLY | O_DIRECTORY);
    if (root) read_unified_controllers(hierarchy, root->get());
  }
  return list;
}

Result<Hierarchies> Hierarchies::read(const std::string& yard) {
  const std::string self = TRY(procfs::read_self_cgroup_text());
  auto list = TRY(parse_hierarchies(self, TRY(procfs::read_self_mountinfo())));
  Hierarchies out;
  for (Hierarchy& hierarchy : list) {
    auto root = open_root(hierarchy, yard);
    if (!root && hierarchy.unified) {
      // "0::" is listed even where the unified hierarchy cannot be mounted; nothing can be in it but "/".
      log::debug("unified cgroup hierarchy: ", root.error().line(), ", going without");
      continue;
    }
    if (!root) return fail(std::move(root).error());
    read_unified_controllers(hierarchy, root->get());
    out.list_.push_back(std::move(hierarchy));
    out.roots_.push_back(*std::move(root));
  }
  return out;
}

Result<Hierarchies> Hierarchies::open_below(const std::string& root, std::vector<Hierarchy> list) {
  Hierarchies out;
  for (Hierarchy& hierarchy : list) {
    Fd fd = TRY(open_at(AT_FDCWD, root + "/" + hierarchy.mount_point, O_RDONLY | O_DIRECTORY));
    read_unified_controllers(hierarchy, fd.get());
    out.list_.push_back(std::move(hierarchy));
    out.roots_.push_back(std::move(fd));
  }
  return out;
}

std::optional<size_t> Hierarchies::find(std::string_view hierarchy_name) const {
  for (size_t i = 0; i < list_.size(); ++i)
    if (list_[i].name() == hierarchy_name) return i;
  return std::nullopt;
}

Result<Membership> read_membership(pid_t pid) {
  const std::string task = cat(pid);
  Membership out = TRY(to_membership(TRY(procfs::read_cgroup(task)), cat("pid ", pid)));
  const auto tids = TRY(procfs::read_thread_ids(pid));
  for (const pid_t tid : tids) {
    if (tid == pid) continue;
    const std::string name = cat("pid ", pid, " thread ", tid);
    auto lines = procfs::read_cgroup(cat(pid, "/task/", tid));
    if (!lines) continue;  // it has ended meanwhile
    if (TRY(to_membership(*lines, name)) != out)
      return fail(Error(Code::kUnsupported, cat(name, " is in other cgroups than its process")).about(name));
  }
  return out;
}

Result<Membership> read_own_membership() { return to_membership(TRY(procfs::read_cgroup("self")), "the engine"); }

Result<Membership> namespace_roots(const Membership& outside, const Membership& inside) {
  Membership out;
  for (const auto& [name, path] : outside) {
    const auto it = inside.find(name);
    if (it == inside.end()) continue;
    const std::string& below = it->second;
    if (below == "/") {
      out[name] = path;
    } else if (path.ends_with(below) && !below.starts_with("/..")) {
      const std::string root = path.substr(0, path.size() - below.size());
      out[name] = root.empty() ? "/" : root;
    } else {
      return fail(Error(Code::kUnsupportedNamespace,
                        cat("cgroup ", name, ":", path, " lies outside the task's own cgroup namespace (", below, ")"))
                      .about(cat("cgroup ", name, ":", path)));
    }
  }
  return out;
}

Result<Membership> read_namespace_roots(pid_t pid) {
  const Fd own = TRY(procfs::open_cgroup_namespace("self"));
  const Fd other = TRY(procfs::open_cgroup_namespace(cat(pid)));
  struct stat a {
  }, b{};
  if (::fstat(own.get(), &a) < 0 || ::fstat(other.get(), &b) < 0) return fail_sys("stat", "cgroup namespace");
  if (a.st_ino == b.st_ino && a.st_dev == b.st_dev) return Membership{};
  const Membership outside = TRY(to_membership(TRY(procfs::read_cgroup(cat(pid))), cat("pid ", pid)));
  if (::setns(other.get(), CLONE_NEWCGROUP) < 0)
    return fail_sys(Code::kUnsupportedNamespace, "setns to the cgroup namespace of pid", cat(pid));
  auto lines = procfs::read_cgroup(cat(pid));
  if (::setns(own.get(), CLONE_NEWCGROUP) < 0) return fail_sys(Code::kInternal, "setns back to", "cgroup namespace");
  if (!lines) return fail(std::move(lines).error());
  Membership inside;
  for (const auto& line : *lines) inside[join(line.controllers, ",")] = line.path;
  return namespace_roots(outside, inside);
}

}  // namespace stasis::cgroups
