// SPDX-License-Identifier: Apache-2.0
// Pseudo terminals of a devpts by number, pts(4). The kernel gives out the lowest free number, and frees the number
// of a closed pair only some time later (its drivers/tty/tty_io.c does it in a work queue): what was opened on the
// way to a number is kept for the ones to come.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::mounts {

using Masters = std::map<uint32_t, Fd>;  // by number, unlocked

// The master of pair `index`: from `unused`, or from opening `ptmx` below `dirfd` often enough; the others that
// come that way are added to `unused`.
Result<Fd> open_master(int dirfd, const std::string& ptmx, uint32_t index, Masters& unused);

}  // namespace stasis::mounts
