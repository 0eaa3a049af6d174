// SPDX-License-Identifier: Apache-2.0
#include "cgroups/ground.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "cgroups/apply.h"
#include "cgroups/control_file.h"
#include "cgroups/path.h"
#include "engine/base/log.h"

namespace stasis::cgroups {

namespace {

constexpr int kRemoveMs = 1000;

std::string label(const Hierarchies& hierarchies, size_t hierarchy, const std::string& path) {
  return cat("cgroup ", hierarchies.at(hierarchy).name(), ":", path);
}

bool must_exist(CgroupMode mode) { return mode == CgroupMode::kNone || mode == CgroupMode::kProps; }

// cgroup.subtree_control may name what the deferred part of a plan has to enable later.
bool has_subtree_control(const PlannedDir& dir) {
  return std::ranges::any_of(dir.properties, [](const PlannedProperty& property) {
    return property.name == "cgroup.subtree_control" && !property.value.empty();
  });
}

}  // namespace

Result<Ground> Ground::create(RestorePlan plan, const Hierarchies& hierarchies) {
  Ground out(std::move(plan), hierarchies);
  for (size_t i = 0; i < out.plan_.dirs.size(); ++i) {
    const PlannedDir& dir = out.plan_.dirs[i];
    TRY(out.make_dir(dir));
    if (out.below_passage(dir.hierarchy, dir.path)) {
      out.deferred_.push_back(i);
      continue;
    }
    // Filled before its children are made: devices.deny and memory.use_hierarchy want it childless.
    TRY(out.build(i));
    if (out.is_passage(dir.hierarchy, dir.path) && has_subtree_control(dir)) out.deferred_.push_back(i);
  }
  TRY(out.open_doors());
  return out;
}

Ground::Ground(Ground&& other) noexcept
    : plan_(std::move(other.plan_)),
      hierarchies_(other.hierarchies_),
      created_(std::exchange(other.created_, {})),
      doors_(std::move(other.doors_)),
      deferred_(std::move(other.deferred_)),
      frozen_(std::exchange(other.frozen_, {})),
      committed_(other.committed_) {}

Ground::~Ground() {
  doors_.clear();
  if (committed_) return;
  thaw();
  remove_created();
}

bool Ground::is_created(size_t hierarchy, const std::string& path) const {
  return std::ranges::find(created_, Place{hierarchy, path}) != created_.end();
}

bool Ground::wants_properties(const PlannedDir& dir) const {
  switch (plan_.mode) {
    case CgroupMode::kIgnore:
    case CgroupMode::kNone: return false;
    case CgroupMode::kSoft: return is_created(dir.hierarchy, dir.path);
    case CgroupMode::kProps:
    case CgroupMode::kFull:
    case CgroupMode::kStrict: return true;
  }
  return false;
}

bool Ground::is_passage(size_t hierarchy, const std::string& path) const {
  if (!hierarchies_->at(hierarchy).unified) return false;
  for (const PlannedSet& set : plan_.sets)
    for (const Placement& placement : set.placements)
      if (placement.hierarchy == hierarchy && placement.prefix == path && placement.path != path) return true;
  return false;
}

bool Ground::below_passage(size_t hierarchy, const std::string& path) const {
  for (std::string above = path; above != "/";) {
    above = parent_of(above);
    if (is_passage(hierarchy, above)) return true;
  }
  return false;
}

Result<void> Ground::make_one(size_t hierarchy, const std::string& path) {
  const int root = hierarchies_->root_fd(hierarchy);
  if (::mkdirat(root, relative(path).c_str(), 0755) < 0) {
    if (errno == EEXIST) return {};
    return fail(Error::sys(Code::kCgroup, "mkdir", label(*hierarchies_, hierarchy, path))
                    .about(label(*hierarchies_, hierarchy, path)));
  }
  created_.emplace_back(hierarchy, path);
  if (!hierarchies_->at(hierarchy).has("cpuset")) return {};
  const Fd parent = TRY(open_dir(root, parent_of(path)));
  const Fd dir = TRY(open_dir(root, path));
  TRY_CTX(inherit_cpuset(parent.get(), dir.get()), label(*hierarchies_, hierarchy, path));
  return {};
}

Result<void> Ground::make_dir(const PlannedDir& dir) {
  const int root = hierarchies_->root_fd(dir.hierarchy);
  const std::string name = label(*hierarchies_, dir.hierarchy, dir.path);
  if (open_dir(root, dir.path)) {
    if (plan_.mode == CgroupMode::kStrict && !is_created(dir.hierarchy, dir.path))
      return fail(Error(Code::kCgroup, cat(name, " exists already, which mode strict does not allow")).about(name));
    return {};
  }
  if (must_exist(plan_.mode))
    return fail(
        Error(Code::kCgroup, cat(name, " does not exist, and modes none and props make no directories")).about(name));
  for (size_t at = dir.path.find('/', 1); at != std::string::npos; at = dir.path.find('/', at + 1))
    TRY(make_one(dir.hierarchy, dir.path.substr(0, at)));
  return make_one(dir.hierarchy, dir.path);
}

// Controllers from the root down to the parent, then the directory's own files.
Result<void> Ground::build(size_t dir_index) {
  const PlannedDir& dir = plan_.dirs[dir_index];
  if (!wants_properties(dir)) return {};
  const int root = hierarchies_->root_fd(dir.hierarchy);
  const auto controllers = needed_controllers(hierarchies_->at(dir.hierarchy), dir);
  if (!controllers.empty()) {
    for (size_t at = 0; at != std::string::npos; at = dir.path.find('/', at + 1)) {
      const std::string above = at == 0 ? std::string("/") : dir.path.substr(0, at);
      const Fd fd = TRY(open_dir(root, above));
      TRY(enable_controllers(fd.get(), label(*hierarchies_, dir.hierarchy, above), controllers));
    }
  }
  return fill(dir);
}

Result<void> Ground::fill(const PlannedDir& dir) {
  const std::string name = label(*hierarchies_, dir.hierarchy, dir.path);
  const Fd fd = TRY_CTX(open_dir(hierarchies_->root_fd(dir.hierarchy), dir.path), name);
  TRY(apply_properties(hierarchies_->at(dir.hierarchy), fd.get(), name, dir, is_passage(dir.hierarchy, dir.path)));
  if (dir.perms) TRY(apply_perms(fd.get(), name, *dir.perms));
  return {};
}

Result<void> Ground::open_doors() {
  for (const PlannedSet& set : plan_.sets) {
    for (const Placement& placement : set.placements) {
      for (const std::string& path : {placement.path, placement.prefix}) {
        if (path.empty()) continue;
        const auto [it, fresh] = doors_.try_emplace(Place{placement.hierarchy, path});
        if (!fresh) continue;
        const std::string name = label(*hierarchies_, placement.hierarchy, path);
        Door& door = it->second;
        door.dir = TRY_CTX(open_dir(hierarchies_->root_fd(placement.hierarchy), path), name);
        door.procs = TRY_CTX(open_for_writing(door.dir.get(), "cgroup.procs"), name);
        if (!hierarchies_->at(placement.hierarchy).unified && has_control(door.dir.get(), "tasks"))
          door.threads = TRY_CTX(open_for_writing(door.dir.get(), "tasks"), name);
      }
    }
  }
  return {};
}

Result<void> Ground::write_pid(size_t hierarchy, const std::string& path, pid_t pid) const {
  const auto door = doors_.find(Place{hierarchy, path});
  const std::string name = label(*hierarchies_, hierarchy, path);
  if (door == doors_.end()) return fail(Error(Code::kInternal, cat(name, " was not opened")).about(name));
  // Moving a whole process takes cgroup_threadgroup_rwsem, which waits for an RCU grace period: milliseconds
  // per write. A thread that moves itself alone does not (cgroup_procs_write_start()); v1 allows that.
  const bool alone = pid == 0 && door->second.threads.valid();
  const int fd = alone ? door->second.threads.get() : door->second.procs.get();
  const std::string text = cat(pid);
  ssize_t n;
  do n = ::write(fd, text.data(), text.size());
  while (n < 0 && errno == EINTR);
  if (n >= 0) return {};
  const std::string who = pid == 0 ? std::string("the calling task") : cat("pid ", pid);
  return fail(Error::sys(Code::kCgroup, cat("move ", who, " into"), name).about(name));
}

Result<const PlannedSet*> Ground::set_of(uint32_t id) const {
  if (id == 0 || plan_.mode == CgroupMode::kIgnore) return nullptr;
  const PlannedSet* set = plan_.find(id);
  if (!set)
    return fail(Error(Code::kImageCorrupt, cat("a task is in cgroup set ", id, ", which the images do not have"))
                    .about("cgroup.img"));
  return set;
}

Result<void> Ground::enter(uint32_t set, pid_t pid, bool born_there) const {
  const PlannedSet* target = TRY(set_of(set));
  if (!target) return {};
  for (const Placement& placement : target->placements) {
    const bool born = born_there && hierarchies_->at(placement.hierarchy).unified &&
                      (placement.prefix.empty() || placement.prefix == placement.path);
    const bool there = placement.inherited || born;
    if (!there) TRY(write_pid(placement.hierarchy, placement.path, pid));
  }
  return {};
}

Result<void> Ground::enter_from(uint32_t parent_set, uint32_t set, pid_t pid) const {
  const PlannedSet* target = TRY(set_of(set));
  const PlannedSet* parent = TRY(set_of(parent_set));
  if (!target || target == parent) return {};
  if (!parent) return enter(set, pid);
  for (const Placement& placement : target->placements) {
    const bool same = std::ranges::any_of(parent->placements, [&](const Placement& other) {
      return other.hierarchy == placement.hierarchy && other.path == placement.path;
    });
    if (!same) TRY(write_pid(placement.hierarchy, placement.path, pid));
  }
  return {};
}

bool Ground::has_prefix(uint32_t set) const {
  const PlannedSet* found = plan_.find(set);
  return found && std::ranges::any_of(found->placements, [](const Placement& p) { return !p.prefix.empty(); });
}

Result<void> Ground::enter_prefix(uint32_t set, pid_t pid, bool born_there) const {
  const PlannedSet* target = TRY(set_of(set));
  if (!target) return {};
  for (const Placement& placement : target->placements) {
    const std::string& path = placement.prefix.empty() ? placement.path : placement.prefix;
    if (placement.inherited && path == placement.path) continue;
    if (born_there && hierarchies_->at(placement.hierarchy).unified) continue;
    TRY(write_pid(placement.hierarchy, path, pid));
  }
  return {};
}

Result<void> Ground::enter_below_prefix(uint32_t set, pid_t pid) const {
  const PlannedSet* target = TRY(set_of(set));
  if (!target) return {};
  for (const Placement& placement : target->placements)
    if (!placement.prefix.empty() && placement.prefix != placement.path)
      TRY(write_pid(placement.hierarchy, placement.path, pid));
  return {};
}

int Ground::unified_fd(uint32_t set) const {
  const PlannedSet* found = plan_.find(set);
  if (!found || plan_.mode == CgroupMode::kIgnore) return -1;
  for (const Placement& placement : found->placements) {
    const std::string& path = placement.prefix.empty() ? placement.path : placement.prefix;
    if (!hierarchies_->at(placement.hierarchy).unified || (placement.inherited && path == placement.path)) continue;
    const auto door = doors_.find(Place{placement.hierarchy, path});
    if (door != doors_.end()) return door->second.dir.get();
  }
  return -1;
}

Result<void> Ground::settle() {
  const std::vector<size_t> todo = std::exchange(deferred_, {});
  for (const size_t i : todo) {
    const PlannedDir& dir = plan_.dirs[i];
    if (!is_passage(dir.hierarchy, dir.path)) {
      TRY(build(i));
      continue;
    }
    if (!wants_properties(dir)) continue;
    const std::string name = label(*hierarchies_, dir.hierarchy, dir.path);
    const Fd fd = TRY_CTX(open_dir(hierarchies_->root_fd(dir.hierarchy), dir.path), name);
    TRY(apply_properties(hierarchies_->at(dir.hierarchy), fd.get(), name, dir, false));
  }
  return {};
}

Result<void> Ground::write_freezer(const PlannedDir& dir, bool frozen) const {
  const bool unified = hierarchies_->at(dir.hierarchy).unified;
  const std::string name = label(*hierarchies_, dir.hierarchy, dir.path);
  const Fd fd = TRY_CTX(open_dir(hierarchies_->root_fd(dir.hierarchy), dir.path), name);
  const std::string_view value = unified ? (frozen ? "1" : "0") : (frozen ? "FROZEN" : "THAWED");
  auto done = write_control(fd.get(), unified ? "cgroup.freeze" : "freezer.state", value);
  if (!done) return fail(std::move(done).error().with_code(Code::kFreezer).about(name));
  return {};
}

Result<void> Ground::restore_freezer() {
  TRY(settle());
  for (size_t i = 0; i < plan_.dirs.size(); ++i) {
    const PlannedDir& dir = plan_.dirs[i];
    if (!dir.frozen || !wants_properties(dir)) continue;
    frozen_.push_back(i);
    auto done = write_freezer(dir, true);
    if (done) continue;
    thaw();
    return done;
  }
  return {};
}

Result<std::vector<std::pair<Fd, const PlannedDir*>>> Ground::wanting_programs() const {
  std::vector<std::pair<Fd, const PlannedDir*>> out;
  for (const PlannedDir& dir : plan_.dirs) {
    if (dir.device_programs.empty() || !wants_properties(dir)) continue;
    const std::string name = label(*hierarchies_, dir.hierarchy, dir.path);
    if (!is_created(dir.hierarchy, dir.path)) {
      log::debug(name, " was there before, its device programs are its maker's");
      continue;
    }
    out.emplace_back(TRY_CTX(open_dir(hierarchies_->root_fd(dir.hierarchy), dir.path), name), &dir);
  }
  return out;
}

void Ground::thaw() {
  for (const size_t i : std::exchange(frozen_, {})) {
    const auto done = write_freezer(plan_.dirs[i], false);
    if (!done) log::warning(done.error().line(), ", ignoring");
  }
}

// Dying tasks count as members until they are reaped, so rmdir(2) may say EBUSY for a while.
void Ground::remove_created() {
  int budget_ms = kRemoveMs;
  for (auto place = created_.rbegin(); place != created_.rend(); ++place) {
    const int root = hierarchies_->root_fd(place->first);
    const std::string path = relative(place->second);
    int rc;
    while ((rc = ::unlinkat(root, path.c_str(), AT_REMOVEDIR)) < 0 && errno == EBUSY && budget_ms > 0) {
      ::poll(nullptr, 0, 5);
      budget_ms -= 5;
    }
    if (rc < 0 && errno != ENOENT)
      log::warning(Error::sys("rmdir", label(*hierarchies_, place->first, place->second)).line(), ", ignoring");
  }
  created_.clear();
}

std::vector<std::string> Ground::created() const {
  std::vector<std::string> out;
  for (const Place& place : created_) out.push_back(cat(hierarchies_->at(place.first).name(), ":", place.second));
  return out;
}

}  // namespace stasis::cgroups
