// SPDX-License-Identifier: Apache-2.0
#include "integration/host.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <deque>
#include <memory>

#include "engine/base/io.h"
#include "engine/procfs/cgroup.h"
#include "engine/procfs/procfs.h"

namespace stasis::integration {

std::string resolve_in_root(const std::string& rootfs, const std::string& path) {
  constexpr int kMaxLinks = 255;  // as many as securejoin-like walkers allow; a loop ends here
  std::deque<std::string> todo;
  const auto push_front = [&](std::string_view text) {
    const auto parts = split(text, '/');
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) todo.emplace_front(*part);
  };
  push_front(path);
  std::vector<std::string> done;
  int links = 0;
  while (!todo.empty()) {
    const std::string part = std::move(todo.front());
    todo.pop_front();
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (!done.empty()) done.pop_back();
      continue;
    }
    const std::string here = cat(rootfs, "/", done.empty() ? "" : cat(join(done, "/"), "/"), part);
    auto link = read_link_at(AT_FDCWD, here);
    if (!link || ++links > kMaxLinks) {
      done.push_back(part);
      continue;
    }
    if (link->starts_with("/")) done.clear();
    push_front(*link);
  }
  return cat("/", join(done, "/"));
}

namespace {

// As LXC names it for its engine, both numbers in hexadecimal.
std::string console_of(int root) {
  constexpr unsigned kFirstPts = 136, kLastPts = 143;
  struct stat status {};
  if (::fstatat(root, "dev/console", &status, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISCHR(status.st_mode)) return {};
  if (major(status.st_rdev) < kFirstPts || major(status.st_rdev) > kLastPts) return {};
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "tty[%llx:%llx]", static_cast<unsigned long long>(status.st_rdev),
                static_cast<unsigned long long>(status.st_dev));
  return text.data();
}

}  // namespace

Result<HostInfo> read_host(const std::string& rootfs, pid_t pid) {
  HostInfo host;
  const procfs::Procfs proc = TRY(procfs::Procfs::open());
  host.hierarchies = TRY(cgroups::read_hierarchies());
  host.own = TRY(cgroups::read_own_membership());
  if (!rootfs.empty()) host.resolve = [rootfs](const std::string& path) { return resolve_in_root(rootfs, path); };
  auto root = std::make_shared<Fd>();
  if (pid > 0) {
    *root = TRY(proc.open_file(pid, "root", O_PATH | O_DIRECTORY));
  } else {
    *root = TRY(open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY));
  }
  host.is_masked_file = [root](const std::string& path) {
    struct stat status {};
    const std::string relative = path.substr(std::min(path.find_first_not_of('/'), path.size()));
    return !relative.empty() && ::fstatat(root->get(), relative.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
           !S_ISDIR(status.st_mode);
  };
  if (pid > 0) host.console_tty = console_of(root->get());
  return host;
}

}  // namespace stasis::integration
