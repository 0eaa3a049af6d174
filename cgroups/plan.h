// SPDX-License-Identifier: Apache-2.0
// Pure planning of a restore: which task goes to which cgroup of this host, which directories that
// takes and which control files are to be written. Images may be hostile: everything is checked here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cgroups/hierarchy.h"
#include "engine/options.h"
#include "proto/cgroup.pb.h"

namespace stasis::cgroups {

struct Perms {
  uint32_t mode = 0, uid = 0, gid = 0;
  bool operator==(const Perms&) const = default;
};

struct PlannedProperty {
  std::string name;
  std::string value;  // empty: only the owner and mode matter
  std::optional<Perms> perms;
};

struct PlannedDir {
  size_t hierarchy = 0;  // index into the host's hierarchies
  std::string path;
  std::optional<Perms> perms;
  std::vector<PlannedProperty> properties;   // in the order they have to be written
  bool frozen = false;                       // for Ground::restore_freezer()
  std::vector<std::string> device_programs;  // for Ground::wanting_programs()
};

struct Placement {
  size_t hierarchy = 0;
  std::string path;
  std::string prefix;      // root of the cgroup namespace to be made; empty: none
  bool inherited = false;  // the engine sits there already: nothing to write for a child of the engine
};

struct PlannedSet {
  uint32_t id = 0;
  std::vector<Placement> placements;  // by hierarchy, ascending
};

struct RestorePlan {
  CgroupMode mode = CgroupMode::kIgnore;
  std::vector<PlannedDir> dirs;  // parents before children
  std::vector<PlannedSet> sets;

  const PlannedSet* find(uint32_t id) const;
};

struct PlanInput {
  std::vector<CgroupRoot> roots;
  CgroupMode mode = CgroupMode::kIgnore;
  std::span<const Hierarchy> hierarchies;
  Membership own;                                                   // the engine's cgroups
  std::map<std::string, std::vector<std::string>> device_programs;  // by path in the unified hierarchy, as dumped
  bool stay_with_engine = false;  // unified hierarchy, no root given: the engine is where the tasks belong
};

// runc on v2 names no root: it moves the engine into the container's new cgroup instead. crun on v2 leaves the
// engine in its own cgroup and expects the dumped path. The client's cgroup tells the two apart.
bool moved_by_client(const Membership& own, const Membership& client);

Result<RestorePlan> plan_restore(const pb::cgroup_entry& entry, const PlanInput& input);

// One line per set and hierarchy, for `stasis plan` and tables: "memory:/n".
std::vector<std::string> describe(const PlannedSet& set, std::span<const Hierarchy> hierarchies);

}  // namespace stasis::cgroups
