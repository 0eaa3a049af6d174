// SPDX-License-Identifier: Apache-2.0
// YAML 1.2 text to a Node: one document, no aliases, anchors or tags, no duplicate
// keys. The .cc is the only file that sees yaml-cpp and its exceptions.
#pragma once

#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "integration/config/node.h"

namespace stasis::integration::config {

Result<Node> parse_yaml(std::string_view text, const std::string& file);
Result<Node> read_yaml(const std::string& path);
// A scalar that reads back as this string: plain where that is safe, else double-quoted.
std::string yaml_scalar(std::string_view text);

}  // namespace stasis::integration::config
