// SPDX-License-Identifier: Apache-2.0
// Reads a command line the way getopt_long(3) does: options and words in any order, "--opt value",
// "--opt=value", "-ovalue", bundled letters, unambiguous abbreviations, "--" ends the options.
#pragma once

#include <span>
#include <string>

#include "engine/cli/option_table.h"

namespace stasis::cli {

// `args` without the program's name. Adds to `request` (so config files may have filled it before).
// `extra`: the caller's own options, looked up first. `stasis_door` admits kStasisOnly options.
Result<void> parse_arguments(std::span<const std::string> args, bool stasis_door, Request& request,
                             std::span<const OptionSpec> extra = {});

// Moves words[first...] to opts.exec_cmd when --exec-cmd was given; otherwise extra words are an error.
Result<void> take_exec_cmd(Request& request, size_t first);

}  // namespace stasis::cli
