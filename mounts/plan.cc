// SPDX-License-Identifier: Apache-2.0
#include "mounts/plan.h"

#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <set>

#include "mounts/dump.h"

namespace stasis::mounts {
namespace {

using From = PlannedMount::From;
constexpr size_t kMaxMounts = 10000;  // far above any container; keeps hostile images cheap

std::unexpected<Error> corrupt(std::string why, std::string_view mountpoint) {
  return fail(Error(Code::kImageCorrupt, std::move(why)).about(cat("mount ", mountpoint)));
}
std::unexpected<Error> refuse(Code code, std::string why, std::string_view mountpoint) {
  return fail(Error(code, std::move(why)).about(cat("mount ", mountpoint)));
}

// Old images write "./proc" for "/proc".
std::string normal(const std::string& path) { return path.starts_with("./") ? path.substr(1) : path; }

// Exactly one of noatime, strictatime and (the kernel's default) relatime.
uint32_t one_time_flag(uint32_t flags) {
  uint32_t time = flags & MS_NOATIME ? MS_NOATIME : flags & MS_STRICTATIME ? MS_STRICTATIME : MS_RELATIME;
  return (flags & ~static_cast<uint32_t>(MS_NOATIME | MS_STRICTATIME | MS_RELATIME)) | time;
}

std::string external_name(const pb::mnt_entry& e) {
  if (e.has_ext_key()) return e.ext_key();
  return e.ext_mount() ? e.root() : std::string();  // before ext_key existed, `root` carried the name
}

class Planner {
 public:
  Planner(const std::vector<pb::mnt_entry>& entries, const Options& options) : entries_(entries), options_(options) {}
  Result<RestorePlan> run();

 private:
  Result<void> check_entry(const pb::mnt_entry& e) const;
  Result<std::vector<int>> find_parents();
  Result<void> find_order();
  Result<PlannedMount> place(const pb::mnt_entry& e, bool is_root);
  Result<void> choose_source(const pb::mnt_entry& e, bool is_root, PlannedMount* m);
  bool lxc_gives_nothing(const std::string& name, const pb::mnt_entry& e) const;
  Result<void> external(const std::string& name, const pb::mnt_entry& e, PlannedMount* m) const;
  Result<int> stage(const pb::mnt_entry& e);
  Result<void> check_sharing(const PlannedMount& m) const;
  Result<void> plan_propagation();
  Result<int> leader(int group, const PlannedMount& joining) const;

  const std::vector<pb::mnt_entry>& entries_;
  const Options& options_;
  const pb::mnt_entry* root_ = nullptr;
  std::vector<int> order_;  // indexes of entries_, parents first
  RestorePlan plan_;
};

Result<void> Planner::check_entry(const pb::mnt_entry& e) const {
  std::string mountpoint = normal(e.mountpoint());
  if (!is_clean_path(mountpoint)) return corrupt("the mountpoint is not a clean absolute path", e.mountpoint());
  auto bad = [](const std::string& text) { return text.size() >= 4096 || text.find('\0') != text.npos; };
  if (bad(e.source()) || bad(e.options()) || bad(e.root()) || bad(e.mountpoint()))
    return corrupt("a text is too long or holds a zero byte", mountpoint);
  if (e.mnt_id() > INT32_MAX || e.parent_mnt_id() > INT32_MAX || e.shared_id() > INT32_MAX || e.master_id() > INT32_MAX)
    return corrupt("an id is out of range", mountpoint);
  if (external_name(e).empty() && !is_clean_path(normal(e.root())))
    return corrupt("the root is not a clean absolute path", mountpoint);
  if (e.deleted()) return refuse(Code::kUnsupportedMount, "it shows something that was deleted", mountpoint);
  return {};
}

// Finds the root, and each entry's parent as an index (-1: none).
Result<std::vector<int>> Planner::find_parents() {
  if (entries_.empty()) return corrupt("no mounts", "/");
  if (entries_.size() > kMaxMounts) return corrupt("too many mounts", "/");
  std::map<uint32_t, int> by_id;
  for (size_t i = 0; i < entries_.size(); ++i) {
    TRY(check_entry(entries_[i]));
    if (!by_id.emplace(entries_[i].mnt_id(), i).second)
      return corrupt("two mounts with one id", entries_[i].mountpoint());
  }
  std::vector<int> parents(entries_.size(), -1);
  for (size_t i = 0; i < entries_.size(); ++i) {
    auto parent = by_id.find(entries_[i].parent_mnt_id());
    std::string mountpoint = normal(entries_[i].mountpoint());
    if (parent == by_id.end() || parent->second == static_cast<int>(i)) {
      if (root_) return corrupt("its parent is missing", mountpoint);
      if (mountpoint != "/") return corrupt("the root mount is not at /", mountpoint);
      root_ = &entries_[i];
      continue;
    }
    if (!is_under(mountpoint, normal(entries_[parent->second].mountpoint())))
      return corrupt("it is not below its parent", mountpoint);
    if (mountpoint == "/") return refuse(Code::kUnsupportedMount, "it covers the root directory", "/");
    parents[i] = parent->second;
  }
  if (!root_) return corrupt("the parents of the mounts form a ring", "/");
  return parents;
}

// The order to attach in: as in the image, but a mount comes after its parent, and after siblings whose
// mountpoints it will hide.
Result<void> Planner::find_order() {
  std::vector<int> parents = TRY(find_parents());
  std::vector<std::vector<int>> children(entries_.size()), unblocks(entries_.size());
  std::vector<int> blockers(entries_.size(), 0);
  for (size_t i = 0; i < entries_.size(); ++i)
    if (parents[i] >= 0) children[parents[i]].push_back(static_cast<int>(i));
  auto before = [&](int first, int second) {
    unblocks[first].push_back(second);
    ++blockers[second];
  };
  for (size_t p = 0; p < entries_.size(); ++p) {
    for (int c : children[p]) {
      before(static_cast<int>(p), c);
      std::string place = normal(entries_[c].mountpoint());
      for (int other : children[p]) {
        std::string deeper = normal(entries_[other].mountpoint());
        if (deeper.size() > place.size() && is_under(deeper, place)) before(other, c);
      }
    }
  }
  std::set<int> ready{static_cast<int>(root_ - entries_.data())};
  while (!ready.empty()) {
    int i = *ready.begin();
    ready.erase(ready.begin());
    order_.push_back(i);
    for (int next : unblocks[i])
      if (--blockers[next] == 0) ready.insert(next);
  }
  if (order_.size() != entries_.size()) return corrupt("the parents of some mounts form a ring", "/");
  return {};
}

// A console that LXC made in the container's devpts is dumped as external, but LXC has none to give on restore: its
// map has an empty source then. The terminal is made anew, with the others of that devpts.
bool Planner::lxc_gives_nothing(const std::string& name, const pb::mnt_entry& e) const {
  const FsType* type = find_fstype(e.fstype());
  if (!type || type->cls != FsClass::kInstance || e.root().size() < 2 || !parse_int<uint32_t>(e.root().substr(1)))
    return false;
  const External* map = nullptr;
  for (const auto& x : options_.externals)
    if (x.kind == "mnt" && x.key == name) map = &x;
  return map && map->value.empty() && std::ranges::any_of(entries_, [&](const auto& o) {
           return o.root_dev() == e.root_dev() && o.root() == "/" && external_name(o).empty();
         });
}

Result<void> Planner::external(const std::string& name, const pb::mnt_entry& e, PlannedMount* m) const {
  m->from = From::kExternal;
  if (name == kDeviceKey)
    return refuse(Code::kUnsupportedMount, "it is a file system on a device of the other machine", m->mountpoint);
  if (name == kAutoKey) {
    if (!options_.auto_ext_mnt)
      return refuse(Code::kMountTarget, "its source was found automatically; give --external mnt[] here too",
                    m->mountpoint);
    if (!is_clean_path(e.source())) return corrupt("its source is not a clean absolute path", m->mountpoint);
    m->host_path = e.source();
    return {};
  }
  const External* found = nullptr;
  for (const auto& x : options_.externals)
    if (x.kind == "mnt" && x.key == name) found = &x;
  if (!found)
    return refuse(Code::kMountTarget,
                  cat("no source for the external mount \"", name, "\": give --external mnt[", name, "]:PATH"),
                  m->mountpoint);
  if (found->value.empty() || found->value.find('\0') != std::string::npos)
    return refuse(Code::kMountTarget, cat("the source given for the external mount \"", name, "\" is empty"),
                  m->mountpoint);
  m->host_path = found->value;
  return {};
}

// cgroup v1 options of an image must not reach beyond choosing a hierarchy: release_agent names a
// program that the host would run.
std::string staged_data(const std::string& fstype, const std::string& words) {
  std::vector<std::string> kept;
  SuperOptions super = super_options(words);
  for (auto word : split(super.data, ','))
    if (!word.empty() && !(fstype == "cgroup" && word.starts_with("release_agent="))) kept.emplace_back(word);
  return join(kept, ",");
}

Result<int> Planner::stage(const pb::mnt_entry& e) {
  std::string mountpoint = normal(e.mountpoint());
  const FsType* type =
      e.fstype() == kFsAuto ? find_auto_fstype(e.fsname(), options_.enable_fs) : find_fstype(e.fstype());
  if (!type && e.fstype() == kFsAuto)
    return refuse(Code::kUnsupportedMount, cat("file system \"", e.fsname().substr(0, 32), "\" needs --enable-fs"),
                  mountpoint);
  if (!type || type->cls == FsClass::kForeign || e.fstype() == kFsUnsupported)
    return refuse(Code::kUnsupportedMount,
                  cat("a file system of type ", type ? type->name : "unknown", " cannot be rebuilt"), mountpoint);
  auto known = std::ranges::find(plan_.staged, e.root_dev(), &StagedFs::s_dev);
  if (known != plan_.staged.end()) {
    if (known->fstype != type->name) return corrupt("two types for one file system", mountpoint);
    return static_cast<int>(known - plan_.staged.begin());
  }
  StagedFs fs;
  fs.s_dev = e.root_dev();
  fs.fstype = std::string(type->name);
  fs.cls = type->cls;
  fs.source = e.source().empty() ? "none" : e.source();
  fs.data = staged_data(fs.fstype, e.options());
  uint32_t flags = e.has_sb_flags() ? e.sb_flags() : e.flags() & ~static_cast<uint32_t>(MS_RDONLY);
  fs.flags = flags & (MS_RDONLY | MS_SYNCHRONOUS | MS_DIRSYNC | MS_MANDLOCK | MS_LAZYTIME);
  if (type->cls == FsClass::kContent) fs.image = content_image_name(fs.s_dev);
  fs.mountpoint = mountpoint;
  plan_.staged.push_back(std::move(fs));
  return static_cast<int>(plan_.staged.size()) - 1;
}

Result<void> Planner::choose_source(const pb::mnt_entry& e, bool is_root, PlannedMount* m) {
  if (std::string name = external_name(e); !name.empty() && !lxc_gives_nothing(name, e)) return external(name, e, m);
  if (is_root) {
    m->from = From::kRoot;
    return {};
  }
  std::string root_of_root = normal(root_->root());
  if (e.root_dev() == root_->root_dev() && external_name(*root_).empty() && is_under(m->fs_root, root_of_root)) {
    m->from = From::kRoot;
    m->subpath = below(m->fs_root, root_of_root);
    return {};
  }
  m->staged = TRY(stage(e));
  m->subpath = below(m->fs_root, "/");
  return {};
}

Result<PlannedMount> Planner::place(const pb::mnt_entry& e, bool is_root) {
  PlannedMount m;
  m.mnt_id = static_cast<int>(e.mnt_id());
  m.mountpoint = normal(e.mountpoint());
  m.flags = one_time_flag(e.flags() & per_mount_mask());
  m.unbindable = e.flags() & MS_UNBINDABLE;
  m.shared_id = static_cast<int>(e.shared_id());
  m.master_id = static_cast<int>(e.master_id());
  m.s_dev = e.root_dev();
  m.fs_root = normal(e.root());
  TRY(choose_source(e, is_root, &m));
  if (m.from == From::kStaged) m.fstype = plan_.staged[m.staged].fstype;
  m.outer_sharing = m.from == From::kExternal && m.shared_id && !e.internal_sharing();
  return m;
}

Result<void> Planner::check_sharing(const PlannedMount& m) const {
  if (m.outer_master && m.from == From::kStaged)
    return refuse(Code::kUnsupportedMount, "it is a slave of a mount outside of the container", m.mountpoint);
  bool has_children = std::ranges::any_of(
      plan_.mounts, [&](const PlannedMount& c) { return c.parent >= 0 && &plan_.mounts[c.parent] == &m; });
  if (m.outer_sharing && has_children)
    return refuse(Code::kUnsupportedMount, "it is shared with the host and has mounts of the container in it",
                  m.mountpoint);
  return {};
}

// The mount of a peer group that shows everything the others and `joining` show.
Result<int> Planner::leader(int group, const PlannedMount& joining) const {
  const auto& all = plan_.mounts;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].shared_id != group) continue;
    auto covers = [&](const PlannedMount& o) { return o.s_dev == all[i].s_dev && is_under(o.fs_root, all[i].fs_root); };
    if (covers(joining) && std::ranges::all_of(all, [&](const auto& o) { return o.shared_id != group || covers(o); }))
      return static_cast<int>(i);
  }
  return refuse(Code::kUnsupportedMount, "no mount of a peer group shows all that it shows", joining.mountpoint);
}

// A group's first member is made shared, after it became a slave of another group if it is one, for which
// that group must stand first; then the other members join it.
Result<void> Planner::plan_propagation() {
  const auto& all = plan_.mounts;
  auto inner = [&](int group) {
    return group && std::ranges::any_of(all, [&](const auto& m) { return m.shared_id == group; });
  };
  std::map<int, int> waiting;  // group -> its leader
  for (const auto& m : all)
    if (m.shared_id && !waiting.contains(m.shared_id)) waiting[m.shared_id] = TRY(leader(m.shared_id, m));
  while (!waiting.empty()) {
    auto ready =
        std::ranges::find_if(waiting, [&](const auto& w) { return !waiting.contains(all[w.second].master_id); });
    if (ready == waiting.end())
      return corrupt("its peer groups are slaves of each other", all[waiting.begin()->second].mountpoint);
    auto [group, first] = *ready;
    waiting.erase(ready);
    PropagationStep step{first};
    if (inner(all[first].master_id)) {
      step.join = TRY(leader(all[first].master_id, all[first]));
      step.slave = true;
    }
    step.shared = true;
    plan_.propagation.push_back(step);
    for (size_t i = 0; i < all.size(); ++i)
      if (all[i].shared_id == group && static_cast<int>(i) != first)
        plan_.propagation.push_back({static_cast<int>(i), first});
  }
  for (size_t i = 0; i < all.size(); ++i)
    if (!all[i].shared_id && inner(all[i].master_id))
      plan_.propagation.push_back({static_cast<int>(i), TRY(leader(all[i].master_id, all[i])), true});
  return {};
}

Result<RestorePlan> Planner::run() {
  TRY(find_order());
  std::map<uint32_t, int> placed;
  for (int i : order_) {
    const auto& e = entries_[i];
    PlannedMount m = TRY(place(e, &e == root_));
    m.rank = i;
    if (&e != root_) m.parent = placed[e.parent_mnt_id()];
    placed[e.mnt_id()] = static_cast<int>(plan_.mounts.size());
    plan_.mounts.push_back(std::move(m));
  }
  for (auto& m : plan_.mounts)
    m.outer_master =
        m.master_id && std::ranges::none_of(plan_.mounts, [&](const auto& o) { return o.shared_id == m.master_id; });
  for (const auto& m : plan_.mounts) TRY(check_sharing(m));
  TRY(plan_propagation());
  return std::move(plan_);
}

}  // namespace

Result<RestorePlan> plan_restore(const std::vector<pb::mnt_entry>& entries, const Options& options) {
  return Planner(entries, options).run();
}

const PlannedMount* RestorePlan::find(int old_mnt_id) const {
  auto it = std::ranges::find(mounts, old_mnt_id, &PlannedMount::mnt_id);
  return it == mounts.end() ? nullptr : &*it;
}

std::string RestorePlan::path_of(int old_mnt_id) const {
  const PlannedMount* m = find(old_mnt_id);
  return m ? m->mountpoint : std::string();
}

std::vector<std::string> RestorePlan::images() const {
  std::vector<std::string> names;
  for (const auto& fs : staged)
    if (!fs.image.empty()) names.push_back(fs.image);
  return names;
}

std::vector<Error> missing_sources(const RestorePlan& plan) {
  std::vector<Error> missing;
  for (const auto& m : plan.mounts) {
    struct stat st;
    if (m.from == From::kExternal && stat(m.host_path.c_str(), &st) != 0)
      missing.push_back(Error::sys(Code::kMountTarget, "stat source", m.host_path).about(cat("mount ", m.mountpoint)));
  }
  return missing;
}

}  // namespace stasis::mounts
