// SPDX-License-Identifier: Apache-2.0
// The cgroup hierarchies of this host, v1, v2 or both (hybrid), and where a task sits in them.
// cgroups(7); the kernel's admin-guide/cgroup-v1 and cgroup-v2.rst.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::cgroups {

struct Hierarchy {
  std::vector<std::string> controllers;  // v1: {"cpu","cpuacct"} or {"name=systemd"}; unified: empty
  bool unified = false;
  std::string mount_point;                       // in our mount namespace; empty: mounted privately
  int mount_id = 0;                              // of that mount, as in mountinfo
  std::vector<std::string> unified_controllers;  // unified: what its root's cgroup.controllers offers

  // As in /proc/PID/cgroup and in the images: "cpu,cpuacct", "name=systemd", "" for the unified one.
  std::string name() const { return join(controllers, ","); }
  bool has(std::string_view controller) const;
};

// Hierarchy name as in /proc/PID/cgroup ("" for v2) -> path.
using Membership = std::map<std::string, std::string>;

// "cpu,cpuacct" -> {"cpu","cpuacct"}; "" -> {""}, the way images and --cgroup-root name the unified hierarchy.
std::vector<std::string> controller_names(std::string_view hierarchy_name);

// Pure: hierarchies of a host by its /proc/self/cgroup and /proc/self/mountinfo.
// A hierarchy without a mount whose root is "/" has an empty mount_point.
Result<std::vector<Hierarchy>> parse_hierarchies(std::string_view self_cgroup, std::string_view self_mountinfo);

// The same for this host, with unified_controllers filled in, and nothing mounted: for checking options.
Result<std::vector<Hierarchy>> read_hierarchies();

// The hierarchies with a directory descriptor of each root. A hierarchy that is not mounted whole in our
// mount namespace is mounted privately (fsmount(2), attached nowhere) for as long as this lives.
class Hierarchies {
 public:
  // `yard`: options.cgroup_yard, a directory with one mount per hierarchy; empty: look for mounts.
  static Result<Hierarchies> read(const std::string& yard = {});
  // For tests and for other roots: `list` is taken as it is, mount_point relative to `root`.
  static Result<Hierarchies> open_below(const std::string& root, std::vector<Hierarchy> list);

  std::span<const Hierarchy> list() const { return list_; }
  size_t size() const { return list_.size(); }
  const Hierarchy& at(size_t index) const { return list_[index]; }
  int root_fd(size_t index) const { return roots_[index].get(); }
  std::optional<size_t> find(std::string_view hierarchy_name) const;

 private:
  std::vector<Hierarchy> list_;
  std::vector<Fd> roots_;
};

// Where all threads of a task sit. Threads of one task in different cgroups are refused (kUnsupported), as is
// a cgroup outside the engine's cgroup namespace (kCgroup). Not for zombies: v1 shows them in "/".
Result<Membership> read_membership(pid_t pid);
// The engine's own.
Result<Membership> read_own_membership();
// The root of the task's cgroup namespace in each hierarchy, in the engine's view; empty when both share one.
// Enters that namespace for the reading and comes back: the engine must be single-threaded.
Result<Membership> read_namespace_roots(pid_t pid);
// Pure part of it: the same task as seen from here and from inside its namespace.
Result<Membership> namespace_roots(const Membership& outside, const Membership& inside);

}  // namespace stasis::cgroups
