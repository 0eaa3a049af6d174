// SPDX-License-Identifier: Apache-2.0
// The text of a description file. Somebody else wrote it, and maybe made it: only a regular file is read,
// and its size is known before a byte is.
#pragma once

#include <string>

#include "engine/base/result.h"

namespace stasis::integration::config {

// kBadDescription; the errno of a file that cannot be opened is kept.
Result<std::string> read_text(const std::string& path);

}  // namespace stasis::integration::config
