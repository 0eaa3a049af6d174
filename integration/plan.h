// SPDX-License-Identifier: Apache-2.0
// What a container means to the engine: external mounts, cgroups, namespaces, stdio,
// supervisor. Made from a description by pure code, shown as YAML, edited by the user,
// and turned into the one options message. Follows runc's own translation for its
// engine, so that images made here and by runc are restorable by each other.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cgroups/hierarchy.h"
#include "engine/base/result.h"
#include "engine/options.h"
#include "integration/oci/spec.h"
#include "integration/runtimes/container.h"

namespace stasis::integration {

// A mount of the container whose source lies outside of it.
struct PlannedMount {
  std::string container;  // mountpoint inside; the key at checkpoint
  std::string name;       // what the image calls it; the key at restore
  std::string source;     // restore: path on the host; empty: the cgroup directory of `hierarchy`
  std::string hierarchy;  // "cpu,cpuacct", "name=systemd"; only for binds of cgroup v1 directories
  std::string from;       // which entry of the description it comes from
  bool operator==(const PlannedMount&) const = default;
};

struct PlannedCgroups {
  CgroupMode mode = CgroupMode::kIgnore;
  std::vector<CgroupRoot> roots;             // restore: where the tasks go
  std::string freezer;                       // checkpoint: directory of the container's freezer
  std::map<std::string, std::string> paths;  // hierarchy name → where the container was when planned
};

inline constexpr std::string_view kEmbedded = "embedded";
// That, or the absolute path of another engine.
bool is_engine_name(std::string_view name);

enum class PlanFor { kDump, kRestore };

struct Plan {
  std::string id;       // container's name; empty for a bundle that never ran
  std::string runtime;  // "runc", "crun", "podman", "lxc" or empty
  pid_t pid = 0;        // 0: not running
  std::string bundle;
  std::string root;  // rootfs on the host, absolute
  std::string engine = std::string(kEmbedded);
  bool terminal = false;
  PlannedCgroups cgroups;
  // Type → "new", "empty" (network: made new, contents not kept) or the path of an existing one. Absent: the host's.
  std::vector<std::pair<std::string, std::string>> namespaces;
  std::vector<PlannedMount> mounts;
  bool auto_mounts = false;  // what is not planned and lies outside is external under its own name
  // In the engine's words ("veth[eth0]:name", "tty[8800:1a]"), for resources that are no mounts.
  std::vector<std::string> dump_external, restore_external;
  std::vector<std::string> stdio;       // link texts of descriptors 0-2 at checkpoint ("pipe:[12]")
  std::vector<std::string> supervisor;  // restore: the command that becomes the parent

  const std::string* find_namespace(std::string_view type) const;
};

// The host as planning sees it; read_host() in host.h fills it, tests write it down.
struct HostInfo {
  std::vector<cgroups::Hierarchy> hierarchies;
  cgroups::Membership own;  // cgroups of this process
  // A path in the container with the symbolic links of the rootfs followed. Unset: as it is.
  std::function<std::string(const std::string&)> resolve;
  // Whether a masked path is there and is no directory (those get a tmpfs, not /dev/null). Unset: no.
  std::function<bool(const std::string&)> is_masked_file;
  std::string console_tty;  // "tty[RDEV:DEV]" of the container's /dev/console when that is a terminal
};

// Where a running container is in each hierarchy, and its freezer: by its runtime's record, which names
// directories, else by `cgroup_dirs` that were filled in from its first process.
void put_cgroup_places(const runtimes::Container& container, const HostInfo& host, PlannedCgroups& out);
// Directories by controller from where a process sits; a sub-group of `cgroup_path` counts as that.
std::map<std::string, std::string> cgroup_dirs_of(const cgroups::Membership& membership, const std::string& cgroup_path,
                                                  const HostInfo& host);

// Pure. `container` may be null: the bundle alone. `bundle` is absolute.
Result<Plan> plan_oci(const oci::Spec& spec, const std::string& bundle, const runtimes::Container* container,
                      const HostInfo& host);

// Where the source of a cgroup v1 bind is on this host once the tasks are in their cgroups:
// the root given for the hierarchy, else the container's own path, else, unmanaged, ours.
Result<std::string> cgroup_source(const Plan& plan, const std::string& hierarchy, const HostInfo& host);

std::string_view mode_name(CgroupMode mode);
Result<CgroupMode> parse_mode(std::string_view name);
// "cpu,cpuacct:/path" or "/path".
std::string root_text(const CgroupRoot& root);

}  // namespace stasis::integration
