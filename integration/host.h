// SPDX-License-Identifier: Apache-2.0
// Reads of this host what planning needs. Changes nothing, needs no privilege of its own.
#pragma once

#include <sys/types.h>

#include <string>

#include "engine/base/result.h"
#include "integration/plan.h"

namespace stasis::integration {

// `rootfs`: for symbolic links in mount destinations; empty: none are followed.
// `pid`: the container's first process, for masked paths; 0: the host's own /proc and /sys are asked.
Result<HostInfo> read_host(const std::string& rootfs, pid_t pid);

// `path` as a process with its root at `rootfs` would reach it; parts that do not exist stay as written.
std::string resolve_in_root(const std::string& rootfs, const std::string& path);

}  // namespace stasis::integration
