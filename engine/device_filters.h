// SPDX-License-Identifier: Apache-2.0
// Which device files the tasks of a v2 control group may use is said by programs, not by control files: they are in
// the manifest, and attached again to the directories that a restore makes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cgroups/ground.h"
#include "engine/image/writer.h"
#include "proto/manifest.pb.h"

namespace stasis {

// Programs around the root task that cannot be read and made again.
void find_device_filter_obstacles(pid_t root, const std::string& yard, std::vector<Error>& obstacles);
// Of all directories of the unified hierarchy that `entry` has.
Result<void> dump_device_filters(const cgroups::Hierarchies& hierarchies, const pb::cgroup_entry& entry,
                                 image::Writer& images);
// By path; every program is checked.
Result<std::map<std::string, std::vector<std::string>>> load_device_filters(const pb::manifest_entry* manifest);
// Last: the tasks that are being built may still need devices.
Result<void> restore_device_filters(const cgroups::Ground& ground);

}  // namespace stasis
