// SPDX-License-Identifier: Apache-2.0
// A process that holds the masters of a container's terminals which no client takes back: without a master a
// terminal is dead, and its name goes. What is written to them is dropped.
#pragma once

#include <sys/types.h>

#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis {

// Returns when it stands. It ends with process `root`, and is nobody's child that waits for one.
Result<void> keep_terminals(const std::vector<Fd>& masters, pid_t root);

}  // namespace stasis
