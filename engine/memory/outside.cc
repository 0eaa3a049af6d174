// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/outside.h"

#include <unistd.h>

#include <algorithm>

namespace stasis::memory {
namespace {

// Most lines of /proc/PID/maps need not be taken apart.
bool may_be_shared(std::string_view line) {
  return std::ranges::any_of(
      std::initializer_list<std::string_view>{"/dev/zero", "/memfd:", "[anon_shmem:", "/anon_hugepage"},
      [&](auto name) { return line.find(name) != std::string_view::npos; });
}

}  // namespace

void OutsideCheck::add(pid_t pid, const Vma& vma) {
  const auto& map = vma.map;
  if (!map.shared || !(is_shared_anonymous(vma.entry) || (vma.entry.status() & kVmaMemfd))) return;
  objects_.try_emplace({{map.dev_major, map.dev_minor}, map.inode}, pid,
                       cat(hex(map.start), "-", hex(map.end), " ", map.name));
}

void OutsideCheck::look(const procfs::Procfs& proc, const std::set<pid_t>& tree, std::vector<Error>& obstacles) const {
  if (objects_.empty()) return;
  const auto processes = proc.processes();
  if (!processes) return;
  std::set<Object> told;
  for (pid_t other : *processes) {
    if (tree.contains(other) || other == ::getpid()) continue;
    const auto text = proc.text(other, "maps");
    if (!text) continue;  // gone, or not for our eyes
    for (auto line : lines(*text)) {
      if (!may_be_shared(line)) continue;
      const auto map = procfs::parse_smaps(line);
      if (!map || map->empty() || !map->front().shared) continue;
      const Object object{{map->front().dev_major, map->front().dev_minor}, map->front().inode};
      const auto at = objects_.find(object);
      if (at == objects_.end() || !told.insert(object).second) continue;
      const auto& [pid, what] = at->second;
      obstacles.push_back(Error(Code::kUnsupportedMemory,
                                cat("pid ", pid, " shares memory with pid ", other, " outside the container: ", what))
                              .about(cat("pid ", pid, " ", what)));
    }
  }
}

}  // namespace stasis::memory
