// SPDX-License-Identifier: Apache-2.0
// Builds a planned mount tree in the calling task's mount namespace and pivots into it.
// Mirrors open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2).
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "mounts/plan.h"
#include "mounts/pty.h"

namespace stasis::mounts {

struct ApplyEnv {
  std::string root_source;  // directory of the engine's mount namespace that becomes "/"; empty: "/"
  // A tmpfs image by name, positioned at its start.
  std::function<Result<Fd>(const std::string& image_name)> open_content;
  // In a user namespace: open_sources(), which then are all that is used of the host. Empty: found by their paths.
  std::vector<Fd> sources;
};

// A pty whose slave is bound somewhere in the tree (/dev/console): the slave's name lives only as long as a
// master is open, so whoever restores terminals takes over this one.
struct PtyMaster {
  uint32_t s_dev = 0;  // of the devpts, in the image
  uint32_t index = 0;
  Fd fd;  // unlocked
};
struct Applied {
  std::vector<PtyMaster> ptys;
  std::map<uint32_t, Masters> unused;  // by s_dev
};

// Call it in the new root task: single-threaded, root, in a mount namespace of its own that is a copy of
// the engine's, and in the new pid, ipc, net, uts and cgroup namespaces. Needs the engine's /proc at /proc
// until it returns. On return cwd and root are the container's "/". On error the namespace is half built:
// exit the task, and the kernel takes it down; nothing has reached other namespaces.
Result<Applied> apply(const RestorePlan& plan, const ApplyEnv& env);

}  // namespace stasis::mounts
