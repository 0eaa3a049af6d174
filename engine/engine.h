// SPDX-License-Identifier: Apache-2.0
// The engine's public face: what doors and the integration layer call.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/options.h"

namespace stasis {

// Tells the caller about phases. Names and their order are those of criu(8) --action-script:
// dump: pre-dump, network-lock, query-ext-files, post-dump, network-unlock;
// restore: pre-restore, setup-namespaces, post-setup-namespaces, orphan-pts-master (with fd),
// post-restore, network-unlock, pre-resume, post-resume. pid is 0 where none is sent.
class Notifier {
 public:
  virtual ~Notifier() = default;
  // An error means: the caller refuses or went away; the operation is rolled back where it still can be.
  // `fd` (or -1) is lent for the call.
  virtual Result<void> notify(std::string_view script, pid_t pid = 0, int fd = -1) = 0;
};

// Microseconds spent and pages moved; written to stats-dump / stats-restore.
struct DumpStats {
  uint32_t freezing_us = 0, frozen_us = 0, memdump_us = 0, memwrite_us = 0;
  uint64_t pages_scanned = 0, pages_written = 0;
};
struct RestoreStats {
  uint32_t forking_us = 0, restore_us = 0;
  uint64_t pages_restored = 0;
};

// Dumps the tree of options.pid. On success the images are committed and the tasks are dead,
// running or stopped as the options say. On any error the tasks run on as they were (a paused
// cgroup stays paused) and what was written to the image directory is removed.
Result<DumpStats> checkpoint(const Options& options, Notifier& notifier);

struct Restored {
  pid_t root_pid = 0;  // in the engine's pid namespace
  RestoreStats stats;
};
// Restores from options.images_dir. On error nothing is left behind.
// kWait and kExecCmd are the door's job after this returns: the root is then our child.
Result<Restored> restore(const Options& options, Notifier& notifier);

// Everything that stands in the way of checkpoint(), found without stopping anything; empty: none.
// options.images_dir is not looked at.
Result<std::vector<Error>> find_obstacles(const Options& options);

// What the running kernel offers that the engine uses or could use, for `check`.
struct KernelFeature {
  std::string name;       // criu's --feature name where one exists
  std::string what;       // one sentence
  bool required = false;  // the engine cannot work without it
  bool present = false;
};
std::vector<KernelFeature> kernel_features();

}  // namespace stasis
