// SPDX-License-Identifier: Apache-2.0
// Compares what stands with what was planned, mount by mount down both trees.
#include <sys/mount.h>

#include <algorithm>

#include "mounts/plan.h"

namespace stasis::mounts {
namespace {

class Comparison {
 public:
  Comparison(const RestorePlan& plan, const Table& now) : plan_(plan), now_(now) {}

  std::vector<Error> run() {
    compare(0, now_.root);
    return std::move(differences_);
  }

 private:
  void differ(const std::string& mountpoint, std::string what) {
    differences_.push_back(Error(Code::kRestoreFailed, std::move(what)).about(cat("mount ", mountpoint)));
  }

  void compare(int planned, int found) {
    const PlannedMount& p = plan_.mounts[planned];
    const Mount& m = now_.mounts[found];
    if (!p.fstype.empty() && p.fstype != m.fstype)
      differ(p.mountpoint, cat("type ", m.fstype, " instead of ", p.fstype));
    uint32_t flags = mount_flags(m.options);
    if (flags != p.flags) differ(p.mountpoint, cat("flags ", flag_words(flags), " instead of ", flag_words(p.flags)));
    if (!!m.shared_id != !!p.shared_id) differ(p.mountpoint, m.shared_id ? "it is shared" : "it is not shared");
    bool slave = p.master_id && !p.outer_master;  // whether an outer master is there is up to the source
    if (slave && !m.master_id) differ(p.mountpoint, "it is not a slave");
    if (!p.master_id && m.master_id && p.from == PlannedMount::From::kStaged) differ(p.mountpoint, "it is a slave");
    if (m.unbindable != p.unbindable) differ(p.mountpoint, "unbindable differs");
    compare_children(planned, m);
  }

  void compare_children(int planned, const Mount& m) {
    std::vector<int> rest = m.children;
    for (size_t i = 0; i < plan_.mounts.size(); ++i) {
      if (plan_.mounts[i].parent != planned) continue;
      auto same =
          std::ranges::find_if(rest, [&](int c) { return now_.mounts[c].mountpoint == plan_.mounts[i].mountpoint; });
      if (same == rest.end()) {
        differ(plan_.mounts[i].mountpoint, "it is missing");
        continue;
      }
      int child = *same;
      rest.erase(same);
      compare(static_cast<int>(i), child);
    }
    for (int c : rest) differ(now_.mounts[c].mountpoint, "it was not planned");
  }

  const RestorePlan& plan_;
  const Table& now_;
  std::vector<Error> differences_;
};

}  // namespace

Result<void> verify(const RestorePlan& plan, const Table& now) {
  std::vector<Error> differences = Comparison(plan, now).run();
  if (differences.empty()) return {};
  Error first = std::move(differences.front());
  first.also().assign(std::make_move_iterator(differences.begin() + 1), std::make_move_iterator(differences.end()));
  return fail(std::move(first));
}

}  // namespace stasis::mounts
