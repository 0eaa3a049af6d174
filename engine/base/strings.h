// SPDX-License-Identifier: Apache-2.0
// Small text helpers: concatenation, strict number parsing, splitting.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace stasis {

// Joins printable parts: cat("pid ", 12, " fd ", 3).
template <class... Parts>
std::string cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

std::string hex(uint64_t value);

// The whole text must be one number in `base`; anything else is nullopt.
template <class Int>
std::optional<Int> parse_int(std::string_view text, int base = 10) {
  Int value{};
  const char* end = text.data() + text.size();
  auto [ptr, ec] = std::from_chars(text.data(), end, value, base);
  if (ec != std::errc() || ptr != end || text.empty()) return std::nullopt;
  return value;
}

std::string_view trim(std::string_view text);
// Splits at every `sep`; empty pieces are kept.
std::vector<std::string_view> split(std::string_view text, char sep);
// Splits at runs of blanks; empty pieces are dropped.
std::vector<std::string_view> fields(std::string_view text);
// Lines without their '\n'; a trailing newline adds no empty line.
std::vector<std::string_view> lines(std::string_view text);
std::string join(const std::vector<std::string>& parts, std::string_view sep);

}  // namespace stasis
