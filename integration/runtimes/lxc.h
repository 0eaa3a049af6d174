// SPDX-License-Identifier: Apache-2.0
// LXC keeps LXCPATH/NAME/config; whether the container runs, and as which pid, only its monitor knows.
// It is asked through LXC's own lxc-info: the protocol of the monitor's socket is internal and changes,
// and in the payload's cgroup init is not told from its children, nor is init always in its top directory.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "integration/runtimes/container.h"

namespace stasis::integration::runtimes {

// "lxc.lxcpath = DIR" of lxc.conf(5); "" when it does not say.
std::string lxcpath_of(std::string_view lxc_conf);
std::vector<std::string> lxc_paths(const FindOptions& options);
Result<std::optional<Container>> find_lxc(const std::string& name, const FindOptions& options);

}  // namespace stasis::integration::runtimes
