// SPDX-License-Identifier: Apache-2.0
#include "cgroups/path.h"

#include <climits>

namespace stasis::cgroups {

Result<std::string> normalise(std::string_view path, Code code) {
  std::string out;
  if (path.find('\0') != std::string_view::npos) return fail(code, "cgroup path with a NUL byte");
  for (std::string_view part : split(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..")
      return fail(Error(code, cat("cgroup path \"", path, "\" has a .. in it")).about(std::string(path)));
    out += '/';
    out += part;
  }
  if (out.size() >= PATH_MAX) return fail(code, cat("cgroup path of ", out.size(), " bytes is too long"));
  return out.empty() ? std::string("/") : out;
}

bool is_under(std::string_view path, std::string_view top) {
  if (top == "/") return true;
  return path.starts_with(top) && (path.size() == top.size() || path[top.size()] == '/');
}

std::string common_ancestor(const std::vector<std::string>& paths) {
  if (paths.empty()) return "/";
  std::string top = paths.front();
  for (const std::string& path : paths)
    while (!is_under(path, top)) top = parent_of(top);
  return top;
}

std::string rebase(std::string_view path, std::string_view from, std::string_view to) {
  return join_path(to, from == "/" ? path : path.substr(from.size()));
}

std::string join_path(std::string_view parent, std::string_view child) {
  while (child.starts_with('/')) child.remove_prefix(1);
  if (child.empty()) return std::string(parent);
  std::string out(parent == "/" ? std::string_view() : parent);
  out += '/';
  out += child;
  return out;
}

std::string parent_of(std::string_view path) {
  const size_t at = path.rfind('/');
  return at == 0 || at == std::string_view::npos ? std::string("/") : std::string(path.substr(0, at));
}

std::string relative(std::string_view path) { return path == "/" ? std::string(".") : std::string(path.substr(1)); }

}  // namespace stasis::cgroups
