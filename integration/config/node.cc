// SPDX-License-Identifier: Apache-2.0
#include "integration/config/node.h"

#include <algorithm>

namespace stasis::integration::config {

std::string to_string(Place place) {
  return place.line > 0 ? cat("line ", place.line, ", column ", place.column) : "unknown place";
}

std::string_view to_string(Node::Kind kind) {
  switch (kind) {
    case Node::Kind::kNull: return "null";
    case Node::Kind::kBool: return "true or false";
    case Node::Kind::kInt: return "an integer";
    case Node::Kind::kReal: return "a number with a fraction";
    case Node::Kind::kString: return "a string";
    case Node::Kind::kList: return "a list";
    case Node::Kind::kMap: return "a map";
  }
  return "something";
}

Node Node::null(Place place) {
  Node node;
  node.place_ = place;
  return node;
}

Node Node::boolean(bool value, Place place) {
  Node node = null(place);
  node.kind_ = Kind::kBool;
  node.bool_ = value;
  node.text_ = value ? "true" : "false";
  return node;
}

Node Node::number(std::string text, Place place) {
  Node node = null(place);
  const bool fits = parse_int<int64_t>(text) || parse_int<uint64_t>(text);
  node.kind_ = fits ? Kind::kInt : Kind::kReal;
  node.text_ = std::move(text);
  return node;
}

Node Node::string(std::string text, Place place) {
  Node node = null(place);
  node.kind_ = Kind::kString;
  node.text_ = std::move(text);
  return node;
}

Node Node::list(std::vector<Node> items, Place place) {
  Node node = null(place);
  node.kind_ = Kind::kList;
  node.items_ = std::move(items);
  return node;
}

Node Node::map(std::vector<Entry> entries, Place place) {
  Node node = null(place);
  node.kind_ = Kind::kMap;
  node.entries_ = std::move(entries);
  return node;
}

Node Node::plain(std::string text, Place place) {
  Node node;
  if (text.empty() || text == "~" || text == "null") return null(place);
  if (text == "true" || text == "false")
    node = boolean(text == "true", place);
  else if (parse_int<int64_t>(text) || parse_int<uint64_t>(text))
    node = number(std::move(text), place);
  else
    node = string(std::move(text), place);
  node.plain_ = true;
  return node;
}

const Node* Node::find(std::string_view key) const {
  for (const auto& [name, node] : entries_)
    if (name == key) return &node;
  return nullptr;
}

Error Cursor::error(std::string_view text) const {
  std::string message = cat(file_, ": ", path_, ": ", text);
  if (node_ && node_->place().line > 0) message += cat(" (", to_string(node_->place()), ")");
  return Error(Code::kBadDescription, std::move(message)).about(file_);
}

Error Cursor::expected(std::string_view what) const {
  if (!node_) return error(cat("missing; expected ", what));
  return error(cat("expected ", what, ", found ", to_string(node_->kind())));
}

Result<Cursor> Cursor::get(std::string_view key) const {
  if (present() && node_->kind() != Node::Kind::kMap) return fail(expected("a map"));
  const Node* child = node_ ? node_->find(key) : nullptr;
  return Cursor(child, cat(path_, ".", key), file_);
}

Result<std::vector<Cursor>> Cursor::list() const {
  std::vector<Cursor> out;
  if (!present()) return out;
  if (node_->kind() != Node::Kind::kList) return fail(expected("a list"));
  out.reserve(node_->items().size());
  for (size_t i = 0; i < node_->items().size(); ++i)
    out.push_back(Cursor(&node_->items()[i], cat(path_, "[", i, "]"), file_));
  return out;
}

Result<std::vector<std::pair<std::string, Cursor>>> Cursor::map() const {
  std::vector<std::pair<std::string, Cursor>> out;
  if (!present()) return out;
  if (node_->kind() != Node::Kind::kMap) return fail(expected("a map"));
  for (const auto& [key, child] : node_->entries()) out.emplace_back(key, Cursor(&child, cat(path_, ".", key), file_));
  return out;
}

Result<std::string> Cursor::string() const {
  if (node_ && (node_->kind() == Node::Kind::kString || (node_->is_plain() && present()))) {
    // No path, name or argument can hold a NUL; a C call would silently cut it there.
    if (node_->text().find('\0') != std::string::npos) return fail(error("the string holds a NUL byte"));
    return node_->text();
  }
  return fail(expected("a string"));
}

Result<bool> Cursor::boolean() const {
  if (!node_ || node_->kind() != Node::Kind::kBool) return fail(expected("true or false"));
  return node_->boolean();
}

Result<int64_t> Cursor::integer() const {
  if (!node_ || node_->kind() != Node::Kind::kInt) return fail(expected("an integer"));
  auto value = parse_int<int64_t>(node_->text());
  if (!value) return fail(error(cat("the number ", node_->text(), " is out of range")));
  return *value;
}

Result<uint64_t> Cursor::unsigned_integer() const {
  if (!node_ || node_->kind() != Node::Kind::kInt) return fail(expected("an integer"));
  auto value = parse_int<uint64_t>(node_->text());
  if (!value) return fail(error(cat("the number ", node_->text(), " is negative")));
  return *value;
}

Result<std::string> Cursor::string_or(std::string fallback) const {
  if (!present()) return fallback;
  return string();
}

Result<bool> Cursor::boolean_or(bool fallback) const {
  if (!present()) return fallback;
  return boolean();
}

Result<std::vector<std::string>> Cursor::strings() const {
  std::vector<std::string> out;
  for (const Cursor& item : TRY(list())) out.push_back(TRY(item.string()));
  return out;
}

Result<std::vector<std::pair<std::string, std::string>>> Cursor::string_map() const {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& [key, item] : TRY(map())) out.emplace_back(key, TRY(item.string()));
  return out;
}

Result<void> Cursor::only(std::initializer_list<std::string_view> keys) const {
  for (const auto& [key, child] : TRY(map()))
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) return fail(child.error("unknown key"));
  return {};
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const unsigned char lead = text[i];
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || i + more >= text.size()) return false;
    uint32_t point = lead & (0x3f >> more);
    for (int k = 1; k <= more; ++k) {
      const unsigned char byte = text[i + k];
      if ((byte & 0xc0) != 0x80) return false;
      point = point << 6 | (byte & 0x3f);
    }
    const bool overlong = point < (more == 3 ? 0x10000u : more == 2 ? 0x800u : 0x80u);
    if (overlong || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) return false;
    i += more + 1;
  }
  return true;
}

}  // namespace stasis::integration::config
