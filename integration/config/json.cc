// SPDX-License-Identifier: Apache-2.0
#include "integration/config/json.h"

#include <optional>
#include <set>

#include "integration/config/text.h"

namespace stasis::integration::config {
namespace {

class Reader {
 public:
  Reader(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  Result<Node> document() {
    Node root = TRY(value(0));
    skip_space();
    if (pos_ != text_.size()) return fail(error("text after the end of the value"));
    return root;
  }

 private:
  Error error(std::string_view what) const {
    return Error(Code::kBadDescription, cat(file_, ": ", what, " (", to_string(place()), ")")).about(file_);
  }
  Place place() const { return {line_, static_cast<int>(pos_ - line_start_) + 1}; }
  bool at_end() const { return pos_ >= text_.size(); }
  char peek() const { return at_end() ? '\0' : text_[pos_]; }

  void skip_space() {
    while (!at_end()) {
      const char c = text_[pos_];
      if (c == '\n') {
        ++line_;
        line_start_ = pos_ + 1;
      } else if (c != ' ' && c != '\t' && c != '\r') {
        return;
      }
      ++pos_;
    }
  }

  bool take(char c) {
    if (peek() != c || at_end()) return false;
    ++pos_;
    return true;
  }

  bool take_word(std::string_view word) {
    if (text_.substr(pos_, word.size()) != word) return false;
    pos_ += word.size();
    return true;
  }

  Result<Node> value(int depth) {
    skip_space();
    const Place start = place();
    if ((peek() == '{' || peek() == '[') && depth >= kMaxDepth)
      return fail(error(cat("nested deeper than ", kMaxDepth)));
    if (at_end()) return fail(error("the text ends where a value should be"));
    switch (peek()) {
      case '{': return map(depth, start);
      case '[': return list(depth, start);
      case '"': return Node::string(TRY(string()), start);
      case 't':
        if (take_word("true")) return Node::boolean(true, start);
        break;
      case 'f':
        if (take_word("false")) return Node::boolean(false, start);
        break;
      case 'n':
        if (take_word("null")) return Node::null(start);
        break;
      default: return number(start);
    }
    return fail(error("not a JSON value"));
  }

  Result<Node> map(int depth, Place start) {
    std::vector<Node::Entry> entries;
    std::set<std::string> seen;
    take('{');
    skip_space();
    if (take('}')) return Node::map({}, start);
    do {
      skip_space();
      if (peek() != '"') return fail(error("expected a key in double quotes"));
      std::string key = TRY(string());
      if (!seen.insert(key).second) return fail(error(cat("the key ", json_quote(key), " occurs twice")));
      skip_space();
      if (!take(':')) return fail(error(cat("expected ':' after the key ", json_quote(key))));
      Node child = TRY(value(depth + 1));
      entries.emplace_back(std::move(key), std::move(child));
      skip_space();
    } while (take(','));
    if (!take('}')) return fail(error("expected ',' or '}'"));
    return Node::map(std::move(entries), start);
  }

  Result<Node> list(int depth, Place start) {
    std::vector<Node> items;
    take('[');
    skip_space();
    if (take(']')) return Node::list({}, start);
    do {
      items.push_back(TRY(value(depth + 1)));
      skip_space();
    } while (take(','));
    if (!take(']')) return fail(error("expected ',' or ']'"));
    return Node::list(std::move(items), start);
  }

  size_t digits() {
    const size_t start = pos_;
    while (!at_end() && text_[pos_] >= '0' && text_[pos_] <= '9') ++pos_;
    return pos_ - start;
  }

  Result<Node> number(Place start_place) {
    const size_t start = pos_;
    take('-');
    const bool leading_zero = peek() == '0';
    const size_t whole = digits();
    if (whole == 0) return fail(error("not a JSON value"));
    if (leading_zero && whole > 1) return fail(error("a number with a leading zero"));
    if (take('.') && digits() == 0) return fail(error("a number without digits after the point"));
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      if (digits() == 0) return fail(error("a number without digits in the exponent"));
    }
    return Node::number(std::string(text_.substr(start, pos_ - start)), start_place);
  }

  Result<std::string> string() {
    std::string out;
    take('"');
    for (;;) {
      if (at_end()) return fail(error("the text ends inside a string"));
      const char c = text_[pos_++];
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) return fail(error("a control character inside a string"));
      if (c != '\\') {
        out += c;
        continue;
      }
      TRY(escape(out));
    }
  }

  Result<void> escape(std::string& out) {
    const char c = peek();
    if (at_end()) return fail(error("the text ends inside a string"));
    ++pos_;
    static constexpr std::string_view kNames = "\"\\/bfnrt";
    static constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
    if (size_t i = kNames.find(c); i != std::string_view::npos) {
      out += kValues[i];
      return {};
    }
    if (c != 'u') return fail(error("an unknown escape in a string"));
    uint32_t point = TRY(hex4());
    if (point >= 0xd800 && point <= 0xdbff) {
      if (!take_word("\\u")) return fail(error("half a surrogate pair in a string"));
      const uint32_t low = TRY(hex4());
      if (low < 0xdc00 || low > 0xdfff) return fail(error("half a surrogate pair in a string"));
      point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
    } else if (point >= 0xdc00 && point <= 0xdfff) {
      return fail(error("half a surrogate pair in a string"));
    }
    append_utf8(point, out);
    return {};
  }

  Result<uint32_t> hex4() {
    auto value = parse_int<uint32_t>(text_.substr(pos_, 4), 16);
    if (!value || text_.size() - pos_ < 4) return fail(error("\\u without four hexadecimal digits"));
    pos_ += 4;
    return *value;
  }

  static void append_utf8(uint32_t point, std::string& out) {
    if (point < 0x80) {
      out += static_cast<char>(point);
    } else if (point < 0x800) {
      out += static_cast<char>(0xc0 | point >> 6);
      out += static_cast<char>(0x80 | (point & 0x3f));
    } else if (point < 0x10000) {
      out += static_cast<char>(0xe0 | point >> 12);
      out += static_cast<char>(0x80 | (point >> 6 & 0x3f));
      out += static_cast<char>(0x80 | (point & 0x3f));
    } else {
      out += static_cast<char>(0xf0 | point >> 18);
      out += static_cast<char>(0x80 | (point >> 12 & 0x3f));
      out += static_cast<char>(0x80 | (point >> 6 & 0x3f));
      out += static_cast<char>(0x80 | (point & 0x3f));
    }
  }

  std::string_view text_;
  const std::string& file_;
  size_t pos_ = 0;
  size_t line_start_ = 0;
  int line_ = 1;
};

}  // namespace

Result<Node> parse_json(std::string_view text, const std::string& file) {
  if (text.size() > kMaxText) return fail(Error(Code::kBadDescription, cat(file, ": larger than 16 MiB")).about(file));
  if (!is_utf8(text)) return fail(Error(Code::kBadDescription, cat(file, ": not valid UTF-8")).about(file));
  return Reader(text, file).document();
}

Result<Node> read_json(const std::string& path) {
  const std::string text = TRY(read_text(path));
  return parse_json(text, path);
}

}  // namespace stasis::integration::config
