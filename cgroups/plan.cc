// SPDX-License-Identifier: Apache-2.0
#include "cgroups/plan.h"

#include <algorithm>
#include <map>
#include <set>

#include "cgroups/path.h"
#include "cgroups/properties.h"
#include "cgroups/root_option.h"
#include "engine/base/log.h"

namespace stasis::cgroups {

namespace {

constexpr int kMaxDepth = 128;
constexpr size_t kMaxDirs = 1u << 16;
constexpr size_t kMaxValue = 1u << 16;

std::unexpected<Error> corrupt(std::string text) {
  return fail(Error(Code::kImageCorrupt, std::move(text)).about("cgroup.img"));
}

std::optional<Perms> perms_of(bool present, const pb::cgroup_perms& perms) {
  if (!present) return std::nullopt;
  return Perms{perms.mode() & 0777, perms.uid(), perms.gid()};
}

// One member of one set, checked.
struct Member {
  std::string path;
  std::string prefix;  // root of the cgroup namespace; empty: none recorded
};

// One hierarchy of the dumped host.
struct Source {
  std::vector<std::string> controllers;  // {""}: unified
  std::map<uint32_t, Member> members;    // by set
  std::vector<std::pair<std::string, const pb::cgroup_dir_entry*>> dirs;
  std::string top = "/";  // what a --cgroup-root replaces

  bool belongs_to(const Hierarchy& host) const {
    if (host.unified) return controllers.size() == 1 && controllers.front().empty();
    return std::ranges::any_of(controllers, [&](const std::string& name) { return host.has(name); });
  }
};

Result<Member> check_member(const pb::cg_member_entry& entry) {
  Member out;
  out.path = TRY(normalise(entry.path(), Code::kImageCorrupt));
  const size_t length = entry.cgns_prefix();
  if (length == 0) return out;
  if (length > out.path.size()) return corrupt(cat("cgroup namespace prefix of ", length, " bytes of ", out.path));
  out.prefix = out.path.substr(0, length);
  if (!is_under(out.path, out.prefix)) return corrupt(cat("cgroup namespace prefix ", out.prefix, " of ", out.path));
  return out;
}

Result<void> flatten(const pb::cgroup_dir_entry& entry, const std::string& parent, int depth, Source& out) {
  if (depth > kMaxDepth || out.dirs.size() >= kMaxDirs) return corrupt("too many or too deeply nested cgroups");
  const std::string path = join_path(parent, TRY(normalise(entry.dir_name(), Code::kImageCorrupt)));
  out.dirs.emplace_back(path, &entry);
  for (const auto& child : entry.children()) TRY(flatten(child, path, depth + 1, out));
  return {};
}

// The directory that is the container's own: the cgroup namespace's root, else the top of the dumped
// directories, else what all tasks share. Tasks in "/" have no say.
std::string find_top(const Source& source) {
  std::vector<std::string> paths;
  std::set<std::string> prefixes;
  for (const auto& [id, member] : source.members) {
    if (member.path != "/") paths.push_back(member.path);
    if (!member.prefix.empty() && member.prefix != "/") prefixes.insert(member.prefix);
  }
  const auto holds_all = [&](const std::string& top) {
    return std::ranges::all_of(paths, [&](const std::string& path) { return is_under(path, top); });
  };
  if (prefixes.size() == 1 && holds_all(*prefixes.begin())) return *prefixes.begin();
  if (!source.dirs.empty() && source.dirs.front().first != "/" && holds_all(source.dirs.front().first))
    return source.dirs.front().first;
  return common_ancestor(paths);
}

std::set<std::string> sorted_names(std::vector<std::string> names) {
  if (names.empty()) names.emplace_back();
  return {names.begin(), names.end()};
}

Result<std::vector<Source>> read_sources(const pb::cgroup_entry& entry) {
  std::map<std::set<std::string>, Source> found;
  std::set<uint32_t> ids;
  for (const auto& set : entry.sets()) {
    if (!ids.insert(set.id()).second) return corrupt(cat("cgroup set ", set.id(), " occurs twice"));
    for (const auto& member : set.ctls()) {
      auto names = controller_names(member.name());
      Source& source = found[sorted_names(names)];
      source.controllers = std::move(names);
      if (!source.members.try_emplace(set.id(), TRY(check_member(member))).second)
        return corrupt(cat("cgroup set ", set.id(), " names ", member.name(), " twice"));
    }
  }
  for (const auto& controller : entry.controllers()) {
    const auto it = found.find(sorted_names({controller.cnames().begin(), controller.cnames().end()}));
    if (it == found.end()) continue;  // no task is in it
    for (const auto& dir : controller.dirs()) TRY(flatten(dir, "/", 0, it->second));
  }
  std::vector<Source> out;
  for (auto& [names, source] : found) {
    source.top = find_top(source);
    out.push_back(std::move(source));
  }
  return out;
}

class Planner {
 public:
  Planner(const PlanInput& input, std::span<const Source> sources) : input_(input), sources_(sources) {
    out_.mode = input.mode;
  }

  Result<RestorePlan> run(const pb::cgroup_entry& entry) {
    for (const auto& set : entry.sets()) out_.sets.push_back({set.id(), {}});
    for (size_t i = 0; i < input_.hierarchies.size(); ++i) TRY(plan_hierarchy(i));
    for (const Source& source : sources_)
      if (std::ranges::none_of(input_.hierarchies, [&](const Hierarchy& host) { return source.belongs_to(host); }))
        log::debug("cgroup hierarchy ", join(source.controllers, ","), " of the images is not on this host");
    for (auto& [place, dir] : dirs_) out_.dirs.push_back(std::move(dir));
    return std::move(out_);
  }

 private:
  Result<void> plan_hierarchy(size_t index) {
    const Hierarchy& host = input_.hierarchies[index];
    std::vector<const Source*> found;
    for (const Source& source : sources_)
      if (source.belongs_to(host)) found.push_back(&source);
    const auto root = TRY(root_for(host, input_.roots));
    for (PlannedSet& set : out_.sets) {
      auto placement = TRY(place(host, set.id, found, root));
      if (!placement) continue;
      placement->hierarchy = index;
      const auto own = input_.own.find(host.name());
      placement->inherited = own != input_.own.end() && own->second == placement->path;
      add_dir(index, placement->path);
      add_dir(index, placement->prefix);
      set.placements.push_back(*std::move(placement));
    }
    for (const Source* source : found) TRY(plan_dirs(index, *source, new_top(host, *source, root)));
    return {};
  }

  // What replaces source.top; nothing: it stays.
  std::optional<std::string> new_top(const Hierarchy& host, const Source& source,
                                     const std::optional<std::string>& root) const {
    if (root || !host.unified || !input_.stay_with_engine) return root;
    const auto own = input_.own.find("");
    if (own == input_.own.end() || own->second == "/" || own->second == source.top) return root;
    return own->second;
  }

  static std::string move_path(const std::string& path, const Source& source, const std::optional<std::string>& top) {
    if (!top) return path;
    if (!is_under(path, source.top)) return *top;  // a task in "/" beside others
    return rebase(path, source.top, *top);
  }

  Result<std::optional<Placement>> place(const Hierarchy& host, uint32_t id, const std::vector<const Source*>& found,
                                         const std::optional<std::string>& root) const {
    std::optional<Placement> out;
    for (const Source* source : found) {
      const auto member = source->members.find(id);
      if (member == source->members.end()) continue;
      const auto top = new_top(host, *source, root);
      Placement next;
      next.path = move_path(member->second.path, *source, top);
      if (!member->second.prefix.empty()) next.prefix = move_path(member->second.prefix, *source, top);
      if (out && (out->path != next.path || out->prefix != next.prefix))
        return fail(Error(Code::kCgroup, cat("the tasks were in different cgroups (", out->path, " and ", next.path,
                                             ") of controllers that are one hierarchy here: ", host.name()))
                        .about(cat("hierarchy ", host.name())));
      out = std::move(next);
    }
    // The dumped host did not have this hierarchy, yet the user says where to go in it.
    if (!out && root) out = Placement{.path = *root};
    return out;
  }

  void add_dir(size_t index, const std::string& path) {
    if (path.empty() || path == "/") return;
    auto& dir = dirs_[{index, path}];
    dir.hierarchy = index;
    dir.path = path;
  }

  bool is_ours(const Source& source, const std::string& path) const {
    if (path == "/" || !is_under(path, source.top)) return false;
    if (source.top != "/") return true;
    // CRIU's images may hold the whole tree of the host; only what tasks are in, or what is below, is theirs.
    return std::ranges::any_of(source.members, [&](const auto& entry) {
      const std::string& member = entry.second.path;
      return member != "/" && (is_under(member, path) || is_under(path, member));
    });
  }

  Result<void> plan_dirs(size_t index, const Source& source, const std::optional<std::string>& top) {
    const Hierarchy& host = input_.hierarchies[index];
    for (const auto& [path, entry] : source.dirs) {
      if (!is_ours(source, path)) continue;
      const std::string target = move_path(path, source, top);
      if (target == "/") continue;  // a container put into "/": the host's own limits are not touched
      add_dir(index, target);
      PlannedDir& dir = dirs_[{index, target}];
      if (!dir.perms) dir.perms = perms_of(entry->has_dir_perms(), entry->dir_perms());
      TRY(add_properties(dir, host, *entry));
      const auto programs = input_.device_programs.find(path);
      if (host.unified && programs != input_.device_programs.end()) dir.device_programs = programs->second;
    }
    return {};
  }

  static Result<void> add_properties(PlannedDir& dir, const Hierarchy& host, const pb::cgroup_dir_entry& entry) {
    const auto tables = properties_of(host);
    for (const Property* property : tables) {
      for (const auto& found : entry.properties()) {
        if (!matches(*property, found.name())) continue;
        if (found.value().size() > kMaxValue || found.value().find('\0') != std::string::npos)
          return corrupt(cat("value of ", found.name()));
        if (property->form == Form::kFreezer) {
          dir.frozen = dir.frozen || found.value() == "FROZEN" || found.value() == "1";
          continue;
        }
        const auto same = [&](const PlannedProperty& other) { return other.name == found.name(); };
        if (std::ranges::any_of(dir.properties, same)) continue;
        dir.properties.push_back({found.name(), found.value(), perms_of(found.has_perms(), found.perms())});
      }
    }
    for (const auto& found : entry.properties())
      if (!find_property(tables, found.name()))
        log::debug("cgroup ", host.name(), ":", dir.path, ": property ", found.name(), " is not for this hierarchy");
    return {};
  }

  const PlanInput& input_;
  std::span<const Source> sources_;
  RestorePlan out_;
  std::map<std::pair<size_t, std::string>, PlannedDir> dirs_;  // sorted: parents come first
};

}  // namespace

const PlannedSet* RestorePlan::find(uint32_t id) const {
  const auto it = std::ranges::find(sets, id, &PlannedSet::id);
  return it == sets.end() ? nullptr : &*it;
}

bool moved_by_client(const Membership& own, const Membership& client) {
  const auto mine = own.find(""), theirs = client.find("");
  return mine != own.end() && theirs != client.end() && mine->second != "/" && mine->second != theirs->second;
}

Result<RestorePlan> plan_restore(const pb::cgroup_entry& entry, const PlanInput& input) {
  if (input.mode == CgroupMode::kIgnore) return RestorePlan{};
  const auto sources = TRY(read_sources(entry));
  return Planner(input, sources).run(entry);
}

std::vector<std::string> describe(const PlannedSet& set, std::span<const Hierarchy> hierarchies) {
  std::vector<std::string> out;
  for (const Placement& placement : set.placements)
    out.push_back(cat(hierarchies[placement.hierarchy].name(), ":", placement.path));
  return out;
}

}  // namespace stasis::cgroups
