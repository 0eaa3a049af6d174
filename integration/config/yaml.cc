// SPDX-License-Identifier: Apache-2.0
// Uses yaml-cpp's event interface: node trees of yaml-cpp merge aliases and forget places.
#include "integration/config/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <optional>
#include <set>
#include <sstream>

#include "integration/config/text.h"

namespace stasis::integration::config {
namespace {

// Thrown inside yaml-cpp's callbacks and caught below, never seen outside this file.
struct Stop {
  Error error;
};

class Builder : public YAML::EventHandler {
 public:
  explicit Builder(const std::string& file) : file_(file) {}

  std::optional<Node> take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check(mark, "", anchor);
    add(Node::null(place(mark)), mark);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { stop(mark, "an alias; write the value out"); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check(mark, tag, anchor);
    const bool quoted = tag == "!";
    add(quoted ? Node::string(value, place(mark)) : Node::plain(value, place(mark)), mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, false);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, true);
  }
  void OnMapEnd() override { close(); }
  void OnAnchor(const YAML::Mark& mark, const std::string&) override { stop(mark, "an anchor; write the value out"); }

 private:
  struct Frame {
    bool is_map;
    YAML::Mark mark;
    std::optional<std::string> key;
    std::vector<Node> items;
    std::vector<Node::Entry> entries;
    std::set<std::string> seen;
  };

  static Place place(const YAML::Mark& mark) { return {mark.line + 1, mark.column + 1}; }

  [[noreturn]] void stop(const YAML::Mark& mark, std::string_view what) {
    throw Stop{Error(Code::kBadDescription, cat(file_, ": ", what, " (", to_string(place(mark)), ")")).about(file_)};
  }

  void check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) stop(mark, "an anchor; write the value out");
    if (!tag.empty() && tag != "?" && tag != "!") stop(mark, "a tag; only plain values are understood");
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, bool is_map) {
    check(mark, tag, anchor);
    if (frames_.size() >= kMaxDepth) stop(mark, cat("nested deeper than ", kMaxDepth));
    if (!frames_.empty() && frames_.back().is_map && !frames_.back().key) stop(mark, "a key that is not a scalar");
    frames_.push_back({is_map, mark, {}, {}, {}, {}});
  }

  void close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    const Place at = place(frame.mark);
    add(frame.is_map ? Node::map(std::move(frame.entries), at) : Node::list(std::move(frame.items), at), frame.mark);
  }

  void add(Node node, const YAML::Mark& mark) {
    if (frames_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = frames_.back();
    if (!frame.is_map) {
      frame.items.push_back(std::move(node));
    } else if (!frame.key) {
      if (node.kind() == Node::Kind::kNull) stop(mark, "an empty key");
      if (!frame.seen.insert(node.text()).second) stop(mark, cat("the key ", json_quote(node.text()), " occurs twice"));
      frame.key = node.text();
    } else {
      frame.entries.emplace_back(std::move(*frame.key), std::move(node));
      frame.key.reset();
    }
  }

  const std::string& file_;
  std::vector<Frame> frames_;
  std::optional<Node> root_;
};

}  // namespace

Result<Node> parse_yaml(std::string_view text, const std::string& file) {
  const auto bad = [&](std::string_view what) {
    return fail(Error(Code::kBadDescription, cat(file, ": ", what)).about(file));
  };
  if (text.size() > kMaxText) return bad("larger than 16 MiB");
  if (!is_utf8(text)) return bad("not valid UTF-8");
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    Builder builder(file);
    if (!parser.HandleNextDocument(builder)) return bad("empty");
    std::optional<Node> root = builder.take_root();
    if (!root) return bad("empty");
    Builder more(file);
    if (parser.HandleNextDocument(more)) return bad("more than one document");
    return std::move(*root);
  } catch (Stop& stopped) {
    return fail(std::move(stopped.error));
  } catch (const YAML::Exception& error) {
    return bad(cat(error.msg, " (", to_string(Place{error.mark.line + 1, error.mark.column + 1}), ")"));
  } catch (const std::exception& error) {
    return bad(error.what());
  }
}

Result<Node> read_yaml(const std::string& path) {
  const std::string text = TRY(read_text(path));
  return parse_yaml(text, path);
}

std::string yaml_scalar(std::string_view text) {
  static constexpr std::string_view kWords[] = {"true", "false", "null", "yes", "no",  "on",   "off",   "True", "False",
                                                "Null", "Yes",   "No",   "On",  "Off", "TRUE", "FALSE", "NULL", "YES",
                                                "NO",   "ON",    "OFF",  "y",   "n",   "Y",    "N"};
  const auto word = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '/'; };
  const auto safe = [&](char c) {
    return word(c) || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '+' || c == '@';
  };
  const bool plain = !text.empty() && word(text[0]) && std::all_of(text.begin(), text.end(), safe) &&
                     std::find(std::begin(kWords), std::end(kWords), text) == std::end(kWords);
  // A JSON string literal is a YAML double-quoted scalar.
  return plain ? std::string(text) : json_quote(text);
}

}  // namespace stasis::integration::config
