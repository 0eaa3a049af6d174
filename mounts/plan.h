// SPDX-License-Identifier: Apache-2.0
// From mountpoints-NSID.img entries (ours or CRIU's) to what has to be mounted, in order.
// Pure: everything that can be wrong with an image or a mount map is found here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/options.h"
#include "mounts/fstypes.h"
#include "mounts/table.h"
#include "proto/mounts.pb.h"

namespace stasis::mounts {

// One file system that is mounted once, aside, and then bound to its places.
struct StagedFs {
  uint32_t s_dev = 0;
  std::string fstype;
  FsClass cls = FsClass::kKernel;
  std::string source;
  std::string data;        // mount(2)'s last argument
  uint32_t flags = 0;      // MS_* of the superblock
  std::string image;       // kContent: what to fill it with, else empty
  std::string mountpoint;  // of its first mount, for messages
};

struct PlannedMount {
  enum class From {
    kRoot,      // ApplyEnv::root_source, or below it
    kStaged,    // plan.staged[staged], or below its root
    kExternal,  // a path of the engine's mount namespace
  };
  From from = From::kStaged;
  int staged = -1;
  std::string subpath;     // below the source's root, "" for the root itself
  std::string host_path;   // kExternal
  int mnt_id = 0;          // in the image
  int rank = 0;            // place in the image, so in mountinfo
  int parent = -1;         // index in plan.mounts; -1: the new root
  std::string mountpoint;  // in the container, absolute
  uint32_t flags = 0;      // per-mount MS_* bits, no propagation
  bool unbindable = false;
  int shared_id = 0, master_id = 0;
  bool outer_master = false;   // its master is outside: keep the slave relation its source has
  bool outer_sharing = false;  // a peer of a mount outside
  uint32_t s_dev = 0;          // in the image
  std::string fs_root;         // in the image: what it shows of that file system
  std::string fstype;          // for messages and verify(); "" if not known (binds of unknown file systems)
};

// Done in order once the tree stands; until then every mount is private, or a slave of outside.
struct PropagationStep {
  int mount = -1;       // index in plan.mounts
  int join = -1;        // become a peer of this one first
  bool slave = false;   // then a slave of that group
  bool shared = false;  // then the first of a group of its own
};

struct RestorePlan {
  std::vector<StagedFs> staged;
  std::vector<PlannedMount> mounts;  // in the order to attach them, [0] is the root
  std::vector<PropagationStep> propagation;

  // "" if there is no such mount. The path of a covered mount leads to what covers it.
  std::string path_of(int old_mnt_id) const;
  const PlannedMount* find(int old_mnt_id) const;
  // Images that apply() will ask for.
  std::vector<std::string> images() const;
};

Result<RestorePlan> plan_restore(const std::vector<pb::mnt_entry>& entries, const Options& options);

// External sources that do not exist in the current mount namespace; for a check before any side effect.
std::vector<Error> missing_sources(const RestorePlan& plan);

// Does `now` (the mount table of a task in the new namespace) show what was planned: the same tree,
// types, flags and propagation? `also` of the error lists every difference.
Result<void> verify(const RestorePlan& plan, const Table& now);

}  // namespace stasis::mounts
