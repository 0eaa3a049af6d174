// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "engine/base/result.h"

namespace stasis::files {

// Before Linux 6.5 fdinfo does not tell: by reading it and putting back what was read. All who might see it in between
// are stopped; whoever waits for an edge may be woken for nothing.
Result<bool> is_semaphore(int fd, uint64_t counter);

}  // namespace stasis::files
