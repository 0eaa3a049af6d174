// SPDX-License-Identifier: Apache-2.0
#include "mounts/classify.h"

#include <algorithm>
#include <array>

namespace stasis::mounts {
namespace {

using How = Treatment::How;

std::unexpected<Error> refuse(const Mount& mount, std::string why) {
  return fail(Error(Code::kUnsupportedMount, std::move(why)).about(describe(mount)));
}

bool deleted(const std::string& path) { return path.ends_with("//deleted"); }

// FS_USERNS_MOUNT: what root of a user namespace may mount. The rest is there because it is bound from outside.
bool mountable_by_user(std::string_view fstype) {
  static constexpr std::array<std::string_view, 7> kNames{"proc",   "sysfs",  "tmpfs",  "devpts",
                                                          "mqueue", "cgroup", "cgroup2"};
  return std::ranges::find(kNames, fstype) != kNames.end();
}

// Namespaces whose kind of content the file system shows.
uint32_t shown_namespace(std::string_view fstype) {
  if (fstype == "proc") return CLONE_NEWPID;
  if (fstype == "sysfs") return CLONE_NEWNET;
  if (fstype == "mqueue") return CLONE_NEWIPC;
  return 0;
}

std::string clean_key(const std::string& key) {
  std::string path = key;
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

}  // namespace

Classifier::Classifier(const Table& table, const Options& options, const Table& engine, uint32_t own_namespaces)
    : table_(table), options_(options), engine_(engine), own_(own_namespaces) {}

// Of several mounts stacked on the named place those are meant that we could not rebuild, if there are such.
const std::string* Classifier::named(const Mount& mount) const {
  const std::string* name = nullptr;
  for (const auto& e : options_.externals)
    if (e.kind == "mnt" && !e.key.empty() && clean_key(e.key) == mount.mountpoint) name = &e.value;
  if (!name || !rebuildable(mount)) return name;
  bool other = std::ranges::any_of(table_.mounts,
                                   [&](const Mount& m) { return m.mountpoint == mount.mountpoint && !rebuildable(m); });
  return other ? nullptr : name;
}

// LXC names /dev/console and binds the same terminal to /dev/lxc/console too: both are to be the one it gives.
const std::string* Classifier::external_key(const Mount& mount) const {
  const std::string* name = named(mount);
  if (name || mount.fstype != "devpts" || mount.root == "/" || mount.root == "/ptmx") return name;
  for (const Mount* m : table_.of_device(mount.s_dev))
    if (m->root == mount.root && (name = named(*m))) return name;
  return nullptr;
}

bool Classifier::rebuildable(const Mount& mount) const {
  const FsType* type = find_fstype(mount.fstype);
  return type && mount.root == "/" && !beyond_user(*type) && type->cls != FsClass::kForeign &&
         type->cls != FsClass::kCgroup && !is_host_instance(mount, *type);
}

bool Classifier::beyond_user(const FsType& type) const {
  if (!(own_ & CLONE_NEWUSER)) return false;
  if (!mountable_by_user(type.name)) return true;
  // What shows a namespace may be mounted by whoever owns that.
  const uint32_t shown = type.cls == FsClass::kCgroup ? uint32_t{CLONE_NEWCGROUP} : shown_namespace(type.name);
  return (own_ & shown) != shown;
}

bool Classifier::is_host_instance(const Mount& mount, const FsType& type) const {
  if (engine_.of_device(mount.s_dev).empty()) return false;
  if (type.cls == FsClass::kContent || type.cls == FsClass::kInstance) return true;
  // The host's /proc bound into a container with its own pid namespace is not the container's /proc.
  return (own_ & shown_namespace(type.name)) != 0;
}

bool Classifier::whole_is_mounted(const Mount& mount) const {
  return std::ranges::any_of(table_.of_device(mount.s_dev),
                             [&](const Mount* m) { return m->root == "/" && !external_key(*m); });
}

// The engine's own mount of the same file system that shows what `mount` shows; of several the one in
// the same peer group, then the mount's master, then the narrowest.
const Mount* Classifier::best_match(const Mount& mount) const {
  const Mount* best = nullptr;
  auto rank = [&](const Mount& m) {
    int group = m.shared_id && m.shared_id == mount.shared_id   ? 2
                : m.shared_id && m.shared_id == mount.master_id ? 1
                                                                : 0;
    return std::pair(group, m.root.size());
  };
  for (const Mount* m : engine_.of_device(mount.s_dev)) {
    std::string path = join_path(m->mountpoint, below(mount.root, m->root));
    if (deleted(m->root) || !is_under(mount.root, m->root) || &engine_.at(path) != m) continue;
    if (!best || rank(*m) > rank(*best)) best = m;
  }
  return best;
}

Result<Treatment> Classifier::foreign(const Mount& mount, Treatment t, std::string_view why) const {
  if (!options_.auto_ext_mnt || deleted(mount.root)) return refuse(mount, std::string(why));
  const Mount* match = best_match(mount);
  if (!match) return refuse(mount, cat(why, ", and the engine's mount namespace does not have it"));
  t.how = How::kAuto;
  t.host_path = join_path(match->mountpoint, below(mount.root, match->root));
  if (t.host_peer && !options_.ext_sharing)
    return refuse(mount, "it is shared with the host, which needs --enable-external-sharing");
  if (mount.master_id && !table_.peer(mount.master_id) && !options_.ext_masters)
    return refuse(mount, "it is a slave of a mount of the host, which needs --enable-external-masters");
  return t;
}

// Inside a cgroup namespace mountinfo shows us paths from *our* namespace's root: the shortest root of a
// hierarchy is taken for the container's own, and becomes "/" in the image.
Result<Treatment> Classifier::cgroup(const Mount& mount, Treatment t) const {
  if (!(own_ & CLONE_NEWCGROUP)) {
    if (mount.root == "/") return t;
    return foreign(mount, t, "it shows a part of a control group hierarchy, without a cgroup namespace");
  }
  const Mount* base = &mount;
  for (const Mount* m : table_.of_device(mount.s_dev))
    if (!external_key(*m) && m->root.size() < base->root.size()) base = m;
  if (!is_under(mount.root, base->root)) return foreign(mount, t, "it shows a part of another control group");
  t.root = join_path("/", below(mount.root, base->root));
  return t;
}

Result<Treatment> Classifier::by_type(const Mount& mount, Treatment t) const {
  if (!t.type || t.type->cls == FsClass::kForeign)
    return foreign(mount, t, cat("a file system of type ", mount.fstype, " can only be mounted from outside"));
  if (beyond_user(*t.type))
    return foreign(mount, t, cat("a file system of type ", mount.fstype, " cannot be mounted in a user namespace"));
  if (is_host_instance(mount, *t.type)) return foreign(mount, t, "the file system belongs to the host");
  if (deleted(mount.root)) return refuse(mount, "what it shows was deleted");
  if (t.type->cls == FsClass::kCgroup) return cgroup(mount, t);
  bool rebuilt_whole = t.type->cls == FsClass::kKernel || t.type->cls == FsClass::kEmpty;
  if (!rebuilt_whole && !whole_is_mounted(mount))
    return foreign(mount, t, cat("only ", mount.root, " of the file system is mounted, so the rest cannot be seen"));
  if (t.type->cls == FsClass::kInstance && mount.root != "/" && mount.root != "/ptmx" &&
      !parse_int<uint32_t>(mount.root.substr(1)))
    return refuse(mount, cat("a bind of ", mount.root, " of a devpts file system"));
  return t;
}

Result<Treatment> Classifier::one(const Mount& mount) const {
  Treatment t;
  t.root = mount.root;
  t.type = find_fstype(mount.fstype);
  if (!t.type) t.type = find_auto_fstype(mount.fstype, options_.enable_fs);
  t.host_peer = mount.shared_id && engine_.peer(mount.shared_id);
  const Mount& root = table_.mounts[table_.root];
  if (&mount == &root) {
    t.how = How::kRoot;
    if (deleted(mount.root)) return refuse(mount, "the root directory was deleted");
    if (mount.mountpoint != "/") return refuse(mount, "the root mount is not at /");
  } else {
    if (std::ranges::find(options_.skip_mounts, mount.mountpoint) != options_.skip_mounts.end()) {
      t.how = How::kSkip;
      return t;
    }
    if (mount.mountpoint == "/") return refuse(mount, "it covers the root directory");
  }
  if (deleted(mount.mountpoint)) return refuse(mount, "its mountpoint was deleted");
  std::vector<std::string> unknown;
  mount_flags(mount.options, &unknown);
  if (!unknown.empty()) return refuse(mount, cat("mount option \"", unknown[0], "\" is not known"));
  if (auto* key = external_key(mount)) {
    if (key->empty()) return refuse(mount, "its external mount entry has no name");
    t.how = How::kExternal;
    t.key = *key;
    return t;
  }
  if (t.how == How::kRoot) return t;
  if (mount.s_dev == root.s_dev && is_under(mount.root, root.root)) {
    if (deleted(mount.root)) return refuse(mount, "what it shows was deleted");
    t.how = How::kRootBind;
    return t;
  }
  return by_type(mount, t);
}

Result<void> Classifier::check_groups_of(const Mount& mount, const Treatment& t) const {
  const Mount& root = table_.mounts[table_.root];
  bool outside = t.how == How::kExternal || t.how == How::kAuto;
  if (t.host_peer && (!outside || !mount.children.empty()))
    return refuse(mount, "it is in one peer group with a mount of the host");
  if (mount.master_id && !table_.peer(mount.master_id)) {
    bool kept = outside || t.how == How::kRoot || (t.how == How::kRootBind && mount.master_id == root.master_id);
    if (!kept) return refuse(mount, "it is a slave of a mount outside of the container");
  }
  // A group is rebuilt by joining: the mount joined must show at least what the joining one shows.
  auto joinable = [&](int group) {
    return std::ranges::any_of(table_.mounts, [&](const Mount& m) {
      return m.shared_id == group && m.s_dev == mount.s_dev && is_under(mount.root, m.root) &&
             std::ranges::all_of(table_.mounts,
                                 [&](const Mount& o) { return o.shared_id != group || is_under(o.root, m.root); });
    });
  };
  if (mount.shared_id && !joinable(mount.shared_id))
    return refuse(mount, "no mount of its peer group shows all that the others show");
  if (mount.master_id && table_.peer(mount.master_id) && !joinable(mount.master_id))
    return refuse(mount, "no mount of its master's peer group shows all that it shows");
  return {};
}

std::vector<Treatment> Classifier::run(std::vector<Error>* errors) const {
  std::vector<Treatment> all(table_.mounts.size());
  for (size_t i = 0; i < table_.mounts.size(); ++i) {
    const Mount& m = table_.mounts[i];
    auto treatment = one(m);
    if (!treatment) {
      errors->push_back(std::move(treatment).error());
      continue;
    }
    all[i] = *std::move(treatment);
    if (all[i].how == How::kSkip) continue;
    if (auto ok = check_groups_of(m, all[i]); !ok) errors->push_back(std::move(ok).error());
  }
  for (const Mount& m : table_.mounts)
    for (int c : m.children)
      if (all[&m - table_.mounts.data()].how == How::kSkip && all[c].how != How::kSkip)
        errors->push_back(
            Error(Code::kUnsupportedMount, cat("the mount below it, ", m.mountpoint, ", is to be skipped"))
                .about(describe(table_.mounts[c])));
  return all;
}

}  // namespace stasis::mounts
