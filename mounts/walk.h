// SPDX-License-Identifier: Apache-2.0
// Names looked up one component at a time, below a directory and without following links.
#pragma once

#include <string_view>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::mounts {

// An O_PATH descriptor of `path` below `dirfd`. `path` is relative and has no "." or ".."; "" is dirfd itself.
Result<Fd> walk_path(int dirfd, std::string_view path);
Result<bool> is_directory(int fd);

}  // namespace stasis::mounts
