// SPDX-License-Identifier: Apache-2.0
#include "integration/runtimes/places.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "engine/base/io.h"
#include "engine/procfs/procfs.h"

namespace stasis::integration::runtimes {

bool valid_id(std::string_view id) {
  if (id.empty() || id.size() > 1024 || id == "." || id == "..") return false;
  return std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_+-.").contains(c);
  });
}

std::vector<std::string> run_roots(std::string_view name, uid_t euid, const char* xdg_runtime_dir) {
  std::vector<std::string> roots;
  const bool has_own = xdg_runtime_dir && *xdg_runtime_dir == '/';
  if (euid != 0 && has_own) roots.push_back(cat(xdg_runtime_dir, "/", name));
  roots.push_back(cat("/run/", name));
  if (euid == 0 && has_own) roots.push_back(cat(xdg_runtime_dir, "/", name));
  return roots;
}

std::vector<std::string> names_with(const std::vector<std::string>& roots, std::string_view record) {
  std::vector<std::string> out;
  for (const std::string& root : roots) {
    auto names = list_dir(AT_FDCWD, root);
    if (!names) continue;
    for (const std::string& name : *names)
      if (::access(cat(root, "/", name, "/", record).c_str(), F_OK) == 0) out.push_back(name);
  }
  std::sort(out.begin(), out.end());
  return out;
}

bool is_absent(const Error& error) { return error.sys_errno() == ENOENT || error.sys_errno() == ENOTDIR; }

// A pid number says little: the process may have ended and the number been given away.
Result<void> check_alive(Container& container, const FindOptions& options) {
  const auto gone = [&](std::string_view why) {
    std::string text = cat("the ", container.runtime, " container ", container.id, " is not running: ", why);
    if (!container.state_dir.empty()) text += cat(" (", container.state_dir, ")");
    return fail(Error(Code::kNoContainer, std::move(text)).about(cat("pid ", container.pid)));
  };
  if (container.pid <= 0) return gone("it has no process");
  const auto proc = options.proc.empty() ? TRY(procfs::Procfs::open())
                                         : procfs::Procfs(TRY(open_at(AT_FDCWD, options.proc, O_RDONLY | O_DIRECTORY)));
  auto read = proc.stat(container.pid);
  if (!read) {
    if (read.error().sys_errno() == ENOENT || read.error().sys_errno() == ESRCH) return gone("its process is gone");
    return fail(std::move(read).error());
  }
  const procfs::Stat& stat = *read;
  if (stat.state == 'Z' || stat.state == 'X') return gone("its process has ended");
  if (container.start_time == 0) container.start_time = stat.start_time;
  if (stat.start_time != container.start_time) return gone("its process has ended and the pid now belongs to another");
  return {};
}

}  // namespace stasis::integration::runtimes
