// SPDX-License-Identifier: Apache-2.0
// An LXC configuration as a plan. Names follow what LXC itself gives its engine, so that images made here
// and by lxc-checkpoint are restorable by each other.
#pragma once

#include "engine/base/result.h"
#include "integration/lxc/config.h"
#include "integration/plan.h"

namespace stasis::integration {

// Pure. `container` may be null: the configuration alone, then `name` is what it would be called.
Result<Plan> plan_lxc(const lxc::Config& config, const std::string& name, const std::string& directory,
                      const runtimes::Container* container, const HostInfo& host);

}  // namespace stasis::integration
