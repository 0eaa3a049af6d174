// SPDX-License-Identifier: Apache-2.0
#include "integration/config/write_json.h"

#include "engine/base/error.h"

namespace stasis::integration::config {

std::string write_json(const Node& node) {
  std::vector<std::string> parts;
  switch (node.kind()) {
    case Node::Kind::kNull: return "null";
    case Node::Kind::kBool:
    case Node::Kind::kInt:
    case Node::Kind::kReal: return node.text();
    case Node::Kind::kString: return json_quote(node.text());
    case Node::Kind::kList:
      for (const Node& item : node.items()) parts.push_back(write_json(item));
      return cat("[", join(parts, ","), "]");
    case Node::Kind::kMap:
      for (const auto& [key, value] : node.entries()) parts.push_back(cat(json_quote(key), ":", write_json(value)));
      return cat("{", join(parts, ","), "}");
  }
  return "null";
}

Node with(const Node& map, std::string_view key, Node value) {
  std::vector<Node::Entry> entries = map.entries();
  for (auto& [name, old] : entries)
    if (name == key) {
      old = std::move(value);
      return Node::map(std::move(entries), map.place());
    }
  entries.emplace_back(std::string(key), std::move(value));
  return Node::map(std::move(entries), map.place());
}

Node without(const Node& map, std::string_view key) {
  std::vector<Node::Entry> entries = map.entries();
  std::erase_if(entries, [&](const auto& entry) { return entry.first == key; });
  return Node::map(std::move(entries), map.place());
}

Node appended(const Node* list, std::vector<Node> items) {
  std::vector<Node> all = list ? list->items() : std::vector<Node>();
  for (Node& item : items) all.push_back(std::move(item));
  return Node::list(std::move(all), {});
}

Node text(std::string value) { return Node::string(std::move(value), {}); }

Node texts(const std::vector<std::string>& values) {
  std::vector<Node> items;
  for (const std::string& value : values) items.push_back(text(value));
  return Node::list(std::move(items), {});
}

}  // namespace stasis::integration::config
