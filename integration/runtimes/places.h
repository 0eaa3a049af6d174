// SPDX-License-Identifier: Apache-2.0
// What the finders share: names that may become part of a path, roots, and whether a record's process lives.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "integration/runtimes/container.h"

namespace stasis::integration::runtimes {

// Container ids come from the command line and become part of a path.
bool valid_id(std::string_view id);
// Below /run, and below $XDG_RUNTIME_DIR; the likeliest first.
std::vector<std::string> run_roots(std::string_view name, uid_t euid, const char* xdg_runtime_dir);
// Names in the directories that hold `record`; unreadable directories hold none.
std::vector<std::string> names_with(const std::vector<std::string>& roots, std::string_view record);
// The record's process exists, and is the one that was recorded. Fills in a start time that was not recorded.
Result<void> check_alive(Container& container, const FindOptions& options);
// The file is not there, or went away while it was looked at.
bool is_absent(const Error& error);

}  // namespace stasis::integration::runtimes
