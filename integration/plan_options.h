// SPDX-License-Identifier: Apache-2.0
// From a plan to the options message, the one schema of every door.
#pragma once

#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "integration/plan.h"
#include "proto/rpc.pb.h"

namespace stasis::integration {

// Moves what the command line says about cgroups and the supervisor into the plan, so that a
// plan is complete and the mounts follow. Named controllers that this host lacks are refused.
Result<void> absorb_options(pb::criu_opts& opts, PlanFor purpose, const HostInfo& host, Plan& plan);

// Adds the plan to the message; what is in it already came from the command line and wins.
// The result owns descriptors that the message names by number.
Result<std::vector<Fd>> plan_to_options(const Plan& plan, PlanFor purpose, const HostInfo& host, pb::criu_opts& opts);

// runc's descriptors.json, kept beside the images: link texts of descriptors 0-2.
std::string descriptors_json(const std::vector<std::string>& stdio);
// Reads it from an image directory; empty when there is none.
Result<std::vector<std::string>> read_descriptors(const std::string& images_dir);

inline constexpr char kDescriptorsFile[] = "descriptors.json";

}  // namespace stasis::integration
