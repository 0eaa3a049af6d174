// SPDX-License-Identifier: Apache-2.0
#include "integration/cli/restore_steps.h"

#include "integration/plan_options.h"

namespace stasis::integration::cli {

void leave_to_runtime(const std::string& id, Plan& plan) {
  plan.id = id;
  plan.namespaces.clear();
  plan.cgroups = {};
}

Result<std::vector<Fd>> plan_restore(Session& session, Target& target) {
  pb::criu_opts& opts = session.opts();
  TRY(absorb_options(opts, PlanFor::kRestore, target.host, target.plan));
  // The pipes of a container's stdio have their other ends outside: the images say which they were.
  const std::vector<std::string> recorded = TRY(read_descriptors(opts.images_dir()));
  if (!recorded.empty()) target.plan.stdio = recorded;
  auto held = TRY(plan_to_options(target.plan, PlanFor::kRestore, target.host, opts));
  opts.set_notify_scripts(true);
  return held;
}

}  // namespace stasis::integration::cli
