// SPDX-License-Identifier: Apache-2.0
#include "cgroups/root_option.h"

#include <algorithm>

#include "cgroups/path.h"
#include "engine/base/log.h"

namespace stasis::cgroups {

namespace {

bool contains(const std::vector<std::string>& list, std::string_view name) {
  return std::ranges::find(list, name) != list.end();
}

// On v2, and for the v2 part of a hybrid host, LXC names the unified hierarchy by its controllers.
bool names(const CgroupRoot& root, const Hierarchy& hierarchy) {
  return std::ranges::any_of(root.controllers, [&](const std::string& name) {
    return hierarchy.unified ? name.empty() || contains(hierarchy.unified_controllers, name) : hierarchy.has(name);
  });
}

}  // namespace

Result<CgroupRoot> make_cgroup_root(std::optional<std::string_view> ctrl, std::string_view path) {
  if (path.empty()) return fail(Error(Code::kCgroupRoot, "cgroup root with an empty path").about("--cgroup-root"));
  CgroupRoot out;
  out.path = TRY(normalise(path, Code::kCgroupRoot));
  if (!ctrl) return out;
  if (ctrl->find('/') != std::string_view::npos || ctrl->find('\0') != std::string_view::npos)
    return fail(Error(Code::kCgroupRoot, cat("cgroup root with a bad controller name \"", *ctrl, "\""))
                    .about(std::string(*ctrl)));
  for (std::string_view name : split(*ctrl, ',')) {
    if (name.empty() && !ctrl->empty()) continue;  // "cpu,,memory"
    out.controllers.emplace_back(name);
  }
  return out;
}

Result<CgroupRoot> parse_cgroup_root(std::string_view text) {
  const size_t colon = text.find(':');
  // A path may hold colons itself; a controller's name never starts with a slash.
  if (colon == std::string_view::npos || text.starts_with('/')) return make_cgroup_root(std::nullopt, text);
  if (colon == 0) return make_cgroup_root(std::nullopt, text.substr(1));
  return make_cgroup_root(text.substr(0, colon), text.substr(colon + 1));
}

Result<void> check_cgroup_roots(const std::vector<CgroupRoot>& roots, std::span<const Hierarchy> hierarchies,
                                bool strict) {
  for (const CgroupRoot& root : roots) {
    for (const std::string& name : root.controllers) {
      const CgroupRoot one{{name}, root.path};
      if (std::ranges::any_of(hierarchies, [&](const Hierarchy& h) { return names(one, h); })) continue;
      const std::string text = cat("cgroup root ", name, ":", root.path, " names a controller this host does not have");
      if (strict) return fail(Error(Code::kCgroupRoot, text).about(cat("controller ", name)));
      log::warning(text, ", ignoring");
    }
  }
  return {};
}

Result<std::optional<std::string>> root_for(const Hierarchy& hierarchy, const std::vector<CgroupRoot>& roots) {
  std::optional<std::string> named, fallback;
  std::vector<std::string> decided;  // controllers that have their root
  for (auto root = roots.rbegin(); root != roots.rend(); ++root) {
    if (root->controllers.empty()) {
      if (!fallback) fallback = root->path;
      continue;
    }
    if (!names(*root, hierarchy)) continue;
    // A later root replaces an earlier one of the same controllers; of others it must agree.
    bool fresh = false;
    for (const std::string& name : root->controllers) {
      const bool ours = hierarchy.unified || hierarchy.has(name);
      if (!ours || contains(decided, name)) continue;
      decided.push_back(name);
      fresh = true;
    }
    if (named && fresh && *named != root->path)
      return fail(Error(Code::kCgroupRoot, cat("cgroup roots ", *named, " and ", root->path, " are both given for ",
                                               hierarchy.unified ? "the unified hierarchy" : hierarchy.name(),
                                               ", which is one hierarchy here"))
                      .about(cat("hierarchy ", hierarchy.name())));
    if (!named) named = root->path;
  }
  return named ? named : fallback;
}

}  // namespace stasis::cgroups
