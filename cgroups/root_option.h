// SPDX-License-Identifier: Apache-2.0
// --cgroup-root [CONTROLLER[,CONTROLLER...]:]PATH and RPC cg_root{ctrl, path}, criu(8).
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "cgroups/hierarchy.h"
#include "engine/options.h"

namespace stasis::cgroups {

// The command line's form. ":PATH" is the default for all, like "PATH".
Result<CgroupRoot> parse_cgroup_root(std::string_view text);
// RPC's form: no ctrl is the default for all, ctrl "" (controllers == {""}) the unified hierarchy.
Result<CgroupRoot> make_cgroup_root(std::optional<std::string_view> ctrl, std::string_view path);

// Controllers this host does not have: refused (kCgroupRoot) when `strict`, as our own command line wants it;
// otherwise a warning, because LXC names what it finds in other places and relies on it being harmless.
Result<void> check_cgroup_roots(const std::vector<CgroupRoot>& roots, std::span<const Hierarchy> hierarchies,
                                bool strict);

// The root for one hierarchy: named (by any of its controllers; the last one given wins), else the default.
// Two named roots that disagree about controllers joined in this hierarchy are refused (kCgroupRoot).
Result<std::optional<std::string>> root_for(const Hierarchy& hierarchy, const std::vector<CgroupRoot>& roots);

}  // namespace stasis::cgroups
