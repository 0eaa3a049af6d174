// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include "engine/base/error.h"

namespace stasis::tasks {

// Why clone3(2) said EEXIST for this number. `proc`: the /proc where the number is looked up, -1 if none shows it.
Error pid_taken(int proc, pid_t pid);

}  // namespace stasis::tasks
