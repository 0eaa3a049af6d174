// SPDX-License-Identifier: Apache-2.0
// What the host's owner wants of every container, /etc/stasis/stasis.yaml or --config FILE:
//
//   engine: embedded                      # or the path of a criu
//   supervisor: [/usr/bin/supervise]      # becomes the parent of restored containers
//   mounts:                               # where a mount's source is now; `name` may narrow it down
//     - {container: /data, to: /srv/new}
//     - {source: /srv/old, to: /srv/new, name: "web-*"}
//   cgroups:                              # the first whose pattern has the container's name
//     - {name: "web-*", roots: ["/web", "cpu:/fast"], mode: soft}
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "integration/plan.h"

namespace stasis::integration {

struct MountRewrite {
  std::string name = "*";  // pattern of container names, fnmatch(3)
  std::string container;   // a mountpoint inside; or
  std::string source;      // the beginning of a source, by whole components
  std::string to;
  std::string from;  // "stasis.yaml $.mounts[0]"
};

struct CgroupPolicy {
  std::string name;
  std::vector<CgroupRoot> roots;
  std::optional<CgroupMode> mode;
};

struct Policy {
  std::string file;
  std::string engine;  // empty: nothing is said
  std::vector<std::string> supervisor;
  std::vector<MountRewrite> mounts;
  std::vector<CgroupPolicy> cgroups;
};

inline constexpr char kPolicyFile[] = "/etc/stasis/stasis.yaml";

Result<Policy> parse_policy(std::string_view text, const std::string& file);
// `path` empty: the usual file, which need not exist.
Result<Policy> read_policy(const std::string& path);
// Pure. Each changed mount says in `from` what changed it. At checkpoint only the engine is of interest:
// where a container will be restored is no place to look for it.
void apply_policy(const Policy& policy, PlanFor purpose, Plan& plan);

}  // namespace stasis::integration
