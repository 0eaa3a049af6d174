// SPDX-License-Identifier: Apache-2.0
// What every restore of ours does between finding its target and the engine.
#pragma once

#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "integration/cli/session.h"
#include "integration/cli/target.h"

namespace stasis::integration::cli {

// Everything about the surroundings of the tasks is a runtime's, which calls the container `id`.
void leave_to_runtime(const std::string& id, Plan& plan);
// Completes the plan by command line and images, and the options by the plan. The result owns descriptors that the
// options name by number.
Result<std::vector<Fd>> plan_restore(Session& session, Target& target);

}  // namespace stasis::integration::cli
