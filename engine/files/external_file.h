// SPDX-License-Identifier: Apache-2.0
// Files that the client names at the checkpoint, --external file[MNT_ID:INODE] (both hexadecimal), and gives on
// restore.
#pragma once

#include <optional>
#include <string>

#include "engine/files/kind.h"

namespace stasis::files {

// What --inherit-fd will call it; nothing if the client has not named it.
std::optional<std::string> external_name(const Candidate& candidate, const Options& options);
// Every external file of the images is given.
Result<void> check_external_files(const FileEntries& files, const Options& options);

}  // namespace stasis::files
