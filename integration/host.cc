// SPDX-License-Identifier: Apache-2.0
#include "integration/host.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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

Result<HostInfo> read_host(const std::string& rootfs, pid_t pid) {
  HostInfo host;
  const procfs::Procfs proc = TRY(procfs::Procfs::open());
  const std::string memberships = TRY(proc.text(::getpid(), "cgroup"));
  host.hierarchies = TRY(cgroups::parse_hierarchies(memberships, TRY(procfs::read_self_mountinfo())));
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
  return host;
}

}  // namespace stasis::integration
