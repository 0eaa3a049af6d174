// SPDX-License-Identifier: Apache-2.0
// What the three kinds of System V objects, sysvipc(7), have in common: listed in /proc/sysvipc, numbered by the
// kernel, described by struct ipc_perm.
#pragma once

#include <sys/ipc.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/procfs/id_map.h"
#include "proto/namespaces.pb.h"

namespace stasis::namespaces {

// Ids in /proc/sysvipc/KIND ("shm", "sem", "msg"); none on a kernel without.
Result<std::vector<uint32_t>> list_sysv(const std::string& kind);

// With the container's own ids, where it has a user namespace.
Result<void> describe_sysv(const struct ipc_perm& perm, const std::string& kind, uint32_t id,
                           const procfs::UserMaps* users, pb::ipc_desc_entry& desc);

// Has `make` (shmget(2) and the like) create an object with the id and the creator of the images.
Result<int> create_sysv(const std::string& kind, const pb::ipc_desc_entry& desc, bool keep_rights,
                        const std::function<int(int flags)>& make);

// "System V segment 3"
std::string sysv_name(const std::string& kind, uint32_t id);

constexpr uint32_t kSysvPermissions = 0777;
constexpr uint32_t kMaxSysvId = 0x7fffffff;

}  // namespace stasis::namespaces
