// SPDX-License-Identifier: Apache-2.0
// A service's client that is not root gets his own processes checkpointed and restored, and nobody else's. The
// engine has his rights then, so the kernel refuses most of the rest; this says it by name, and before it begins.
#pragma once

#include <vector>

#include "engine/base/result.h"
#include "engine/options.h"
#include "engine/procfs/procfs.h"
#include "engine/tasks/snapshot.h"

namespace stasis {

// Every thread has the client's ids, no capabilities and no filters, and may be looked into (PR_SET_DUMPABLE).
void check_owner(const procfs::Procfs& proc, pid_t pid, const Client& client, std::vector<Error>& obstacles);
// `namespaces`: CLONE_NEW* that the tree has for itself.
Result<void> check_client_namespaces(unsigned long namespaces);
// The same of tasks in images.
Result<void> check_client_images(const tasks::Snapshot& snapshot, const Client& client);

}  // namespace stasis
