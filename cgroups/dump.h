// SPDX-License-Identifier: Apache-2.0
// Which cgroups the tasks are in, what those look like and their limits -> pb::cgroup_entry (cgroup.img).
// Only cgroups that are the container's are read: nothing of "/" but the membership.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cgroups/hierarchy.h"
#include "engine/options.h"
#include "proto/cgroup.pb.h"

namespace stasis::cgroups {

struct TaskMembership {
  pid_t pid = 0;
  Membership membership;
  Membership namespace_roots;  // of read_namespace_roots(); empty: in the engine's cgroup namespace
};

struct DumpOptions {
  std::vector<CgroupRoot> roots;              // walk from here, so that empty directories are kept
  std::vector<std::string> only_controllers;  // --cgroup-dump-controller; empty: all
  std::optional<bool> frozen;                 // what the engine's own freezing hides: the state found before it
};

struct Dumped {
  pb::cgroup_entry entry;
  std::map<pid_t, uint32_t> set_of;  // pid -> cg_set of its task_core_entry
};

Result<Dumped> dump(const Hierarchies& hierarchies, const DumpOptions& options, std::span<const TaskMembership> tasks);

}  // namespace stasis::cgroups
