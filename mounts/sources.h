// SPDX-License-Identifier: Apache-2.0
// The places of the host that a mount tree is built from, opened for a root task that may not go there itself: root of
// a user namespace has no rights on the directories of the host.
#pragma once

#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "mounts/plan.h"

namespace stasis::mounts {

// O_PATH descriptors in the calling task's mount namespace, which has to be the root task's, a copy of the engine's:
// the root directory, then the source of each external mount in the order of the plan.
Result<std::vector<Fd>> open_sources(const RestorePlan& plan, const std::string& root_source);
// unix(7), SCM_RIGHTS.
Result<void> send_sources(int socket, const std::vector<Fd>& sources);
Result<std::vector<Fd>> receive_sources(int socket, size_t count);
size_t count_sources(const RestorePlan& plan);

}  // namespace stasis::mounts
