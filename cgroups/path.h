// SPDX-License-Identifier: Apache-2.0
// Paths of cgroups, as text: absolute, "/" for the root of a hierarchy, no trailing slash.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace stasis::cgroups {

// Makes `path` absolute and drops double and trailing slashes and "." components.
// ".." and NUL are refused with `code`, as are paths of PATH_MAX bytes and more.
Result<std::string> normalise(std::string_view path, Code code);
// "/a/b" is under "/a", "/a/b" and "/".
bool is_under(std::string_view path, std::string_view top);
// The deepest path that all are under; "/" for none.
std::string common_ancestor(const std::vector<std::string>& paths);
// `path`, which is under `from`, moved to below `to`.
std::string rebase(std::string_view path, std::string_view from, std::string_view to);
std::string join_path(std::string_view parent, std::string_view child);
// "/a/b" -> "/a"; "/a" -> "/".
std::string parent_of(std::string_view path);
// For the *at() calls: without the leading slash, "." for the root.
std::string relative(std::string_view path);

}  // namespace stasis::cgroups
