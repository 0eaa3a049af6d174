// SPDX-License-Identifier: Apache-2.0
// The container's own user namespace, user_namespaces(7) -> userns-ID.img. Ids in images are those inside it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <utility>
#include <vector>

#include "engine/base/result.h"
#include "engine/image/reader.h"
#include "engine/image/writer.h"
#include "engine/procfs/id_map.h"
#include "engine/procfs/procfs.h"
#include "proto/core.pb.h"

namespace stasis::namespaces {

// The maps of the user namespace of `root`, which is not the engine's. Obstacles: it is no child of the engine's,
// namespaces of `flags` (CLONE_NEW*) belong to another one, no pid and mount namespace are its own.
Result<procfs::UserMaps> look_user(const procfs::Procfs& proc, pid_t root, unsigned long flags,
                                   std::vector<Error>& obstacles);
// Credentials of `pid` that the namespace does not have, or that could not be given again.
void find_foreign_ids(const procfs::Procfs& proc, pid_t root, pid_t pid, const procfs::UserMaps& maps,
                      std::vector<Error>& obstacles);
// All ids of the status as they are inside.
Result<procfs::Status> inside_status(procfs::Status status, const procfs::UserMaps& maps);

Result<void> dump_user(const procfs::UserMaps& maps, uint32_t id, image::Writer& images);
Result<procfs::UserMaps> load_user(const image::Reader& images, uint32_t id);

// From outside, for a process in a new user namespace.
Result<void> write_maps(const procfs::Procfs& proc, pid_t pid, const procfs::UserMaps& maps);
// In that process, once it is mapped: its user and group become root's, or the first there are. It keeps all
// capabilities, and its own files in /proc.
Result<void> become_root(const procfs::UserMaps& maps);

// Where setgroups(2) is denied inside, a task has the groups that it was born with: the engine has them in this scope.
class BirthGroups {
 public:
  static Result<BirthGroups> take(const procfs::UserMaps& maps, const pb::creds_entry& creds);
  BirthGroups(BirthGroups&& other) noexcept
      : mine_(std::exchange(other.mine_, {})), taken_(std::exchange(other.taken_, false)) {}
  BirthGroups& operator=(BirthGroups&&) = delete;
  ~BirthGroups();

 private:
  BirthGroups() = default;
  std::vector<gid_t> mine_;
  bool taken_ = false;
};

// A user namespace belongs to whoever makes it: in this scope the engine is that user, with no rights but to make one.
class AsOwner {
 public:
  static Result<AsOwner> take(const std::optional<procfs::UserMaps>& maps);
  AsOwner(AsOwner&& other) noexcept : taken_(std::exchange(other.taken_, false)) {}
  AsOwner& operator=(AsOwner&&) = delete;
  ~AsOwner();  // keeps errno
  // In what was made: it has other ways to its ids.
  void forget() { taken_ = false; }

 private:
  AsOwner() = default;
  bool taken_ = false;
};

}  // namespace stasis::namespaces
