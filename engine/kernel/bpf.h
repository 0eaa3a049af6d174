// SPDX-License-Identifier: Apache-2.0
// bpf(2) programs that decide about the device files of a v2 control group. They are plain code: what uses maps or
// calls helpers of the kernel is refused in both directions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace stasis::kernel {

// Whole instructions, not too many, and nothing in them that refers to another object. `about`: for messages.
Result<void> check_device_program(std::string_view instructions, const std::string& about);
// The instructions of each program attached to this directory itself; none where the kernel has no such programs.
Result<std::vector<std::string>> read_device_programs(int cgroup_fd, const std::string& about);
Result<void> attach_device_program(int cgroup_fd, std::string_view instructions, const std::string& about);

}  // namespace stasis::kernel
