// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace stasis::files {

// A path below /proc/PID: what is open of it belongs to a process.
inline bool of_process(std::string_view path) {
  return path.starts_with("/proc/") && path.size() > 6 && path[6] >= '0' && path[6] <= '9';
}

}  // namespace stasis::files
