// SPDX-License-Identifier: Apache-2.0
// The `criu` command line, criu(8): dump, restore, check, swrk.
#pragma once

#include "engine/cli/operations.h"

namespace stasis::cli {

// What we say we are. Clients compare it: one digit before the dot, or LXC refuses; no git id, or go-criu adds one.
constexpr int kCriuMajor = 4, kCriuMinor = 2;

// The whole program under the name criu; the exit status.
int criu_main(int argc, char** argv);
int criu_main(int argc, char** argv, const Engine& engine);

}  // namespace stasis::cli
