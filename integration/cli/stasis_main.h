// SPDX-License-Identifier: Apache-2.0
// The `stasis` command line. Exit status: 0 done, 1 refused or failed, 2 wrong usage;
// `restore` without --detach ends with the container's own status.
#pragma once

#include <string_view>

namespace stasis::integration::cli {

inline constexpr std::string_view kVersion = "0.1.0";

int stasis_main(int argc, char** argv);

}  // namespace stasis::integration::cli
