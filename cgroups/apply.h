// SPDX-License-Identifier: Apache-2.0
// Writing the properties of one cgroup directory, with the kernel's peculiarities of each controller.
#pragma once

#include <string>
#include <vector>

#include "cgroups/hierarchy.h"
#include "cgroups/plan.h"

namespace stasis::cgroups {

// Writes what differs from what the directory has. A value that the kernel refuses is an error about `label`
// unless a new cgroup has that value anyhow. With `skip_subtree_control` that one file is left alone.
Result<void> apply_properties(const Hierarchy& hierarchy, int dir_fd, const std::string& label, const PlannedDir& dir,
                              bool skip_subtree_control);
// Owner and mode of the directory itself.
Result<void> apply_perms(int dir_fd, const std::string& label, const Perms& perms);
// A v1 cpuset is born without CPUs and memory nodes and takes no tasks then: gives it its parent's.
Result<void> inherit_cpuset(int parent_fd, int dir_fd);
// v2: names of controllers that `dir` needs from its parent to have its properties written.
std::vector<std::string> needed_controllers(const Hierarchy& hierarchy, const PlannedDir& dir);
// v2: adds `controllers` to the cgroup.subtree_control of a directory.
Result<void> enable_controllers(int dir_fd, const std::string& label, const std::vector<std::string>& controllers);

}  // namespace stasis::cgroups
