// SPDX-License-Identifier: Apache-2.0
// A value tree back to JSON, and changed copies of it: descriptions that stasis hands on keep every key it does not
// know.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "integration/config/node.h"

namespace stasis::integration::config {

std::string write_json(const Node& node);

// A copy of a map with this entry set; any other kind of node counts as an empty map.
Node with(const Node& map, std::string_view key, Node value);
Node without(const Node& map, std::string_view key);
// A copy of a list with these items behind its own; any other kind of node counts as an empty list.
Node appended(const Node* list, std::vector<Node> items);

Node text(std::string value);
Node texts(const std::vector<std::string>& values);

}  // namespace stasis::integration::config
