// SPDX-License-Identifier: Apache-2.0
// Who has to be born by whom so that every task ends up with its parent, session and process
// group (credentials(7), setsid(2)). Pure. A session is inherited at birth and left only by
// setsid(2); an orphan goes to the nearest child subreaper, so tasks whose session is not
// their parent's are born by a helper inside that session, which then dies.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/result.h"

namespace stasis::tasks {

struct TreeNode {
  uint32_t pid = 0, pgid = 0, sid = 0;
  int task = -1;               // index of the input; -1: a helper
  int creator = -1;            // index of a node; -1: the engine
  bool early = false;          // born before its creator's setsid()
  bool leads_session = false;  // calls setsid()
  bool adopts = false;         // must be a child subreaper while helpers die
  bool shares_files = false;   // its creator's file table is its own, clone(2) CLONE_FILES
  bool shares_fs = false;      // and root, cwd, umask, CLONE_FS
  std::vector<int> children;   // nodes it creates, in order
};

struct TreePlan {
  std::vector<TreeNode> nodes;   // creators before those they create; the first is the root task
  std::vector<int> extra_roots;  // nodes besides the first that the engine creates
};

struct TreeInput {
  uint32_t pid = 0, ppid = 0, pgid = 0, sid = 0;
};
// `outer_session`: the root may stay in the engine's session (--shell-job).
Result<TreePlan> plan_tree(const std::vector<TreeInput>& input, bool outer_session);

}  // namespace stasis::tasks
