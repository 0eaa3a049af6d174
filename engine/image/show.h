// SPDX-License-Identifier: Apache-2.0
// Image files as JSON, in the shape crit(1) gives: {"magic": NAME, "entries": [...]}.
// Payloads are shown by their size: "extra_bytes".
#pragma once

#include <string>
#include <vector>

#include "engine/base/result.h"

namespace stasis::image {

// Any image with a magic, by its content. With `field_paths` ("tc.comm", "vmas.start") only
// these fields; a path that the message does not have is kUsage.
Result<std::string> to_json(int dirfd, const std::string& name, const std::vector<std::string>& field_paths = {});

// The files of a directory that to_json can show, sorted.
Result<std::vector<std::string>> image_names(int dirfd);

}  // namespace stasis::image
