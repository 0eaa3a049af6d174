// SPDX-License-Identifier: Apache-2.0
// One immutable value tree for every description that is read: JSON (config.json,
// state.json) and YAML (plan files). A Cursor is a place in it, and words the errors:
// "$.process.args[1]: expected a string, found a number (line 3, column 9)".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/result.h"

namespace stasis::integration::config {

inline constexpr size_t kMaxText = 16u << 20;  // bytes of one description
inline constexpr int kMaxDepth = 64;           // nesting of lists and maps

struct Place {
  int line = 0;  // from 1; 0: unknown
  int column = 0;
};
std::string to_string(Place place);

class Node {
 public:
  // kReal: a number that is no integer; kept as text, nothing here needs its value.
  enum class Kind { kNull, kBool, kInt, kReal, kString, kList, kMap };
  using Entry = std::pair<std::string, Node>;

  static Node null(Place place);
  static Node boolean(bool value, Place place);
  // `text` is the number as written; integers keep all 64 bits, signed or not.
  static Node number(std::string text, Place place);
  static Node string(std::string text, Place place);
  static Node list(std::vector<Node> items, Place place);
  static Node map(std::vector<Entry> entries, Place place);
  // A YAML plain scalar: also usable where a string is wanted ("name: 123").
  static Node plain(std::string text, Place place);

  Kind kind() const { return kind_; }
  bool is_plain() const { return plain_; }
  Place place() const { return place_; }
  bool boolean() const { return bool_; }
  const std::string& text() const { return text_; }
  const std::vector<Node>& items() const { return items_; }
  const std::vector<Entry>& entries() const { return entries_; }
  const Node* find(std::string_view key) const;

 private:
  Kind kind_ = Kind::kNull;
  bool bool_ = false;
  bool plain_ = false;
  Place place_;
  std::string text_;
  std::vector<Node> items_;
  std::vector<Entry> entries_;
};
std::string_view to_string(Node::Kind kind);

// A node and the way to it. Absent nodes and nulls are "missing"; asking a missing
// one for a value is an error, asking it for a member gives another missing one.
class Cursor {
 public:
  // `file` goes in front of every error.
  Cursor(const Node* root, std::string file) : node_(root), path_("$"), file_(std::move(file)) {}

  bool present() const { return node_ && node_->kind() != Node::Kind::kNull; }
  const Node* node() const { return node_; }
  const std::string& path() const { return path_; }

  Result<Cursor> get(std::string_view key) const;
  Result<std::vector<Cursor>> list() const;  // empty when missing
  Result<std::vector<std::pair<std::string, Cursor>>> map() const;
  Result<std::string> string() const;
  Result<bool> boolean() const;
  Result<int64_t> integer() const;
  Result<uint64_t> unsigned_integer() const;
  // The same, or the default when missing.
  Result<std::string> string_or(std::string fallback) const;
  Result<bool> boolean_or(bool fallback) const;
  Result<std::vector<std::string>> strings() const;
  Result<std::vector<std::pair<std::string, std::string>>> string_map() const;
  // Refuses every key of a map that is not listed.
  Result<void> only(std::initializer_list<std::string_view> keys) const;

  Error error(std::string_view text) const;

 private:
  Cursor(const Node* node, std::string path, std::string file)
      : node_(node), path_(std::move(path)), file_(std::move(file)) {}
  Error expected(std::string_view what) const;

  const Node* node_;
  std::string path_;
  std::string file_;
};

// True for text without overlong forms, surrogates or stray bytes.
bool is_utf8(std::string_view text);

}  // namespace stasis::integration::config
