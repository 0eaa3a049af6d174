// SPDX-License-Identifier: Apache-2.0
// A strict JSON reader (RFC 8259): duplicate keys, trailing text, invalid UTF-8 and
// deep nesting are refused. yaml-cpp is not used for JSON: it takes far more than JSON.
#pragma once

#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "integration/config/node.h"

namespace stasis::integration::config {

// `file` names the text in errors.
Result<Node> parse_json(std::string_view text, const std::string& file);
// Reads at most kMaxText bytes. A file that is not there is kNotFound.
Result<Node> read_json(const std::string& path);

}  // namespace stasis::integration::config
