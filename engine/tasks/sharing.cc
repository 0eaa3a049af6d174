// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/sharing.h"

#include <set>

namespace stasis::tasks {

// kcmp(2) puts objects in an order, so that equal ones are found without comparing all with all.
Shared find_shared(const std::vector<Process>& processes, kernel::Kcmp what) {
  Shared out;
  std::vector<pid_t> sorted;
  for (const auto& p : processes) {
    if (p.zombie) continue;
    size_t first = 0, last = sorted.size();
    bool gone = false;
    while (first < last && !gone) {
      const size_t middle = (first + last) / 2;
      const int order = kernel::kcmp(sorted[middle], p.pid, what);
      if (order == 0) out[p.pid] = sorted[middle];
      gone = order <= 0 || order > 2;  // the same, or one of them has ended
      order == 1 ? first = middle + 1 : last = middle;
    }
    if (!gone) sorted.insert(sorted.begin() + static_cast<long>(first), p.pid);
  }
  return out;
}

Result<void> plan_sharing(TreePlan& plan, const std::vector<Kinship>& tasks) {
  std::set<uint32_t> files, fs;
  auto place = [&](TreeNode& node, const TreeNode* creator, uint32_t Kinship::*what, std::set<uint32_t>& known,
                   const char* name) -> Result<bool> {
    const uint32_t own = tasks[static_cast<size_t>(node.task)].*what;
    if (own == 0) return false;
    const int above = creator ? creator->task : -1;
    if (above >= 0 && tasks[static_cast<size_t>(above)].*what == own) return true;
    if (known.insert(own).second) return false;
    return fail(Error(Code::kUnsupported, cat("pid ", node.pid, " shares its ", name,
                                              " with a process that is not its parent, and cannot be born again so"))
                    .about(cat("pid ", node.pid)));
  };
  for (auto& node : plan.nodes) {  // creators come first
    if (node.task < 0) continue;
    const auto* creator = node.creator < 0 ? nullptr : &plan.nodes[static_cast<size_t>(node.creator)];
    node.shares_files = TRY(place(node, creator, &Kinship::files, files, "file table"));
    node.shares_fs = TRY(place(node, creator, &Kinship::fs, fs, "root and cwd"));
  }
  return {};
}

Result<void> check_sharing(const std::vector<Process>& processes, const Shared& files, const Shared& fs,
                           bool shell_job) {
  if (files.empty() && fs.empty()) return {};
  std::map<pid_t, uint32_t> inside{{0, 0}};
  for (const auto& p : processes) inside[p.tgid] = static_cast<uint32_t>(p.npid);
  std::vector<TreeInput> input;
  std::vector<Kinship> kinship;
  for (const auto& p : processes) {
    input.push_back({static_cast<uint32_t>(p.npid), inside[p.parent], static_cast<uint32_t>(p.npgid),
                     static_cast<uint32_t>(p.nsid)});
    auto key = [&](const Shared& shared) {
      const auto at = shared.find(p.pid);
      return p.zombie ? 0 : static_cast<uint32_t>(at == shared.end() ? p.pid : at->second);
    };
    kinship.push_back({key(files), key(fs)});
  }
  auto plan = TRY(plan_tree(input, shell_job));
  return plan_sharing(plan, kinship);
}

}  // namespace stasis::tasks
