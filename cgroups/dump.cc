// SPDX-License-Identifier: Apache-2.0
#include "cgroups/dump.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "cgroups/control_file.h"
#include "cgroups/path.h"
#include "cgroups/properties.h"
#include "cgroups/root_option.h"
#include "engine/base/log.h"

namespace stasis::cgroups {

namespace {

constexpr int kMaxDepth = 128;

// Which directories of one hierarchy are the container's.
struct Tree {
  std::string top;                 // never "/"
  std::vector<std::string> heads;  // below top or top itself; everything below a head belongs
};

bool below_any(const std::vector<std::string>& heads, std::string_view path) {
  return std::ranges::any_of(heads, [&](const std::string& head) { return is_under(path, head); });
}

bool above_any(const std::vector<std::string>& heads, std::string_view path) {
  return std::ranges::any_of(heads, [&](const std::string& head) { return is_under(head, path); });
}

// Drops paths that are under others.
std::vector<std::string> minimal(const std::set<std::string>& paths) {
  std::vector<std::string> out;
  for (const std::string& path : paths)
    if (!below_any(out, path)) out.push_back(path);
  return out;
}

// `start`: a --cgroup-root or the root of the container's cgroup namespace: all below it is the container's.
std::vector<Tree> plan_trees(const std::set<std::string>& paths, const std::set<std::string>& starts) {
  std::vector<std::string> heads = minimal(paths);
  if (heads.empty()) return {};
  for (const std::string& start : starts) {
    if (start == "/") continue;
    if (std::ranges::all_of(heads, [&](const std::string& head) { return is_under(head, start); }))
      return {{start, {start}}};
  }
  const std::string top = common_ancestor(heads);
  if (top != "/") return {{top, std::move(heads)}};
  std::vector<Tree> out;
  for (std::string& head : heads) {
    std::string own = head;
    out.push_back({own, {std::move(head)}});
  }
  return out;
}

class Walker {
 public:
  Walker(const Hierarchy& hierarchy, int root, const Tree& tree, std::optional<bool> frozen)
      : hierarchy_(hierarchy), root_(root), tree_(tree), frozen_(frozen), tables_(properties_of(hierarchy)) {}

  // Nothing when the directory has been removed.
  Result<std::optional<pb::cgroup_dir_entry>> walk(const std::string& path, int depth = 0) const {
    if (depth > kMaxDepth) return fail(Error(Code::kCgroup, "cgroups nested too deeply").about(label(path)));
    auto dir = open_dir(root_, path);
    if (!dir && dir.error().sys_errno() == ENOENT) return std::optional<pb::cgroup_dir_entry>();
    if (!dir) return fail(std::move(dir).error().with_code(Code::kCgroup).about(label(path)));
    pb::cgroup_dir_entry entry;
    entry.set_dir_name(depth == 0 ? path.substr(1) : path.substr(path.rfind('/') + 1));
    struct stat st {};
    if (::fstat(dir->get(), &st) < 0) return fail_sys(Code::kCgroup, "stat", label(path));
    set_perms(*entry.mutable_dir_perms(), st.st_mode, st.st_uid, st.st_gid);
    const Listing listing = TRY(list(dir->get()));
    TRY(add_properties(entry, dir->get(), path, listing));
    const bool all = below_any(tree_.heads, path);
    for (const std::string& name : listing.dirs) {
      const std::string child = join_path(path, name);
      if (!all && !above_any(tree_.heads, child)) continue;
      auto found = TRY(walk(child, depth + 1));
      if (found) *entry.add_children() = *std::move(found);
    }
    return std::optional<pb::cgroup_dir_entry>(std::move(entry));
  }

 private:
  std::string label(const std::string& path) const { return cat("cgroup ", hierarchy_.name(), ":", path); }

  static void set_perms(pb::cgroup_perms& perms, mode_t mode, uid_t uid, gid_t gid) {
    perms.set_mode(mode & 07777);
    perms.set_uid(uid);
    perms.set_gid(gid);
  }

  Result<void> add_properties(pb::cgroup_dir_entry& entry, int dir, const std::string& path,
                              const Listing& listing) const {
    for (const Property* property : tables_)
      for (const std::string& name : listing.files)
        if (matches(*property, name)) TRY(add_property(entry, *property, name, dir, path));
    return {};
  }

  Result<void> add_property(pb::cgroup_dir_entry& entry, const Property& property, const std::string& name, int dir,
                            const std::string& path) const {
    auto file = read_control_with_owner(dir, name);
    if (!file) {
      // Some exist and refuse to be read, such as cpu.rt_* without group scheduling.
      log::debug(label(path), "/", name, ": ", file.error().line(), ", leaving it out");
      return {};
    }
    std::string value = file->text;
    if (name == "cgroup.type" && value != "domain")
      return fail(Error(Code::kUnsupported, cat(label(path), " is of type \"", value, "\"")).about(label(path)));
    switch (property.form) {
      case Form::kOwnerOnly: value.clear(); break;
      case Form::kOomControl: value = value.find("oom_kill_disable 1") != std::string::npos ? "1" : "0"; break;
      case Form::kFreezer: value = freezer_value(dir, path, value); break;
      default: break;
    }
    auto* out = entry.add_properties();
    out->set_name(name);
    out->set_value(std::move(value));
    set_perms(*out->mutable_perms(), file->mode, file->uid, file->gid);
    return {};
  }

  std::string freezer_value(int dir, const std::string& path, const std::string& now) const {
    bool frozen = now == "1" || now == "FROZEN" || now == "FREEZING";
    // v1 shows a child of a frozen group as frozen too; its own wish is what is to be kept.
    if (!hierarchy_.unified)
      if (const auto self = read_control(dir, "freezer.self_freezing")) frozen = *self == "1";
    if (frozen_ && path == tree_.top) frozen = *frozen_;
    if (hierarchy_.unified) return frozen ? "1" : "0";
    return frozen ? "FROZEN" : "THAWED";
  }

  const Hierarchy& hierarchy_;
  int root_;
  const Tree& tree_;
  std::optional<bool> frozen_;
  std::vector<const Property*> tables_;
};

bool skipped(const Hierarchy& hierarchy, const std::vector<std::string>& only) {
  if (only.empty()) return false;
  const auto wanted = [&](const std::string& name) { return std::ranges::find(only, name) != only.end(); };
  if (hierarchy.unified) return std::ranges::none_of(hierarchy.unified_controllers, wanted);
  return std::ranges::none_of(hierarchy.controllers, [&](const std::string& name) {
    return wanted(name) || (name.starts_with("name=") && wanted(name.substr(5)));
  });
}

Result<void> dump_hierarchy(const Hierarchies& hierarchies, size_t index, const DumpOptions& options,
                            std::span<const TaskMembership> tasks, pb::cgroup_entry& entry) {
  const Hierarchy& hierarchy = hierarchies.at(index);
  const std::string name = hierarchy.name();
  auto* controller = entry.add_controllers();
  for (const std::string& part : controller_names(name)) controller->add_cnames(part);
  if (skipped(hierarchy, options.only_controllers)) return {};
  std::set<std::string> paths, starts;
  for (const TaskMembership& task : tasks) {
    const auto path = task.membership.find(name);
    // A task in "/" is in no cgroup of the container's: that directory and its children are the host's.
    if (path != task.membership.end() && path->second != "/") paths.insert(path->second);
    const auto start = task.namespace_roots.find(name);
    if (start != task.namespace_roots.end()) starts.insert(start->second);
  }
  if (const auto root = TRY(root_for(hierarchy, options.roots))) starts.insert(*root);
  for (const Tree& tree : plan_trees(paths, starts)) {
    const Walker walker(hierarchy, hierarchies.root_fd(index), tree, options.frozen);
    auto found = TRY(walker.walk(tree.top));
    if (found) *controller->add_dirs() = *std::move(found);
  }
  return {};
}

Result<pb::cg_set_entry> make_set(const TaskMembership& task, uint32_t id) {
  pb::cg_set_entry out;
  out.set_id(id);
  for (const auto& [name, path] : task.membership) {
    auto* member = out.add_ctls();
    member->set_name(name);
    member->set_path(path);
    const auto root = task.namespace_roots.find(name);
    if (root == task.namespace_roots.end()) continue;
    if (!is_under(path, root->second))
      return fail(Error(Code::kUnsupportedNamespace, cat("pid ", task.pid, " is in cgroup ", name, ":", path,
                                                         ", outside its cgroup namespace ", root->second))
                      .about(cat("pid ", task.pid)));
    if (root->second != "/") member->set_cgns_prefix(static_cast<uint32_t>(root->second.size()));
  }
  return out;
}

}  // namespace

Result<Dumped> dump(const Hierarchies& hierarchies, const DumpOptions& options, std::span<const TaskMembership> tasks) {
  Dumped out;
  std::map<std::pair<Membership, Membership>, uint32_t> ids;
  for (const TaskMembership& task : tasks) {
    const auto [it, fresh] = ids.try_emplace({task.membership, task.namespace_roots}, ids.size() + 1);
    if (fresh) *out.entry.add_sets() = TRY(make_set(task, it->second));
    out.set_of[task.pid] = it->second;
  }
  for (size_t i = 0; i < hierarchies.size(); ++i) TRY(dump_hierarchy(hierarchies, i, options, tasks, out.entry));
  return out;
}

}  // namespace stasis::cgroups
