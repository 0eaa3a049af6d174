// SPDX-License-Identifier: Apache-2.0
#include "integration/cli/session.h"

#include <cstdio>

namespace stasis::integration::cli {

const std::string* Session::value(std::string_view name) const {
  const auto found = request.extra.find(name);
  return found == request.extra.end() || found->second.empty() ? nullptr : &found->second.back();
}

Result<void> at_most_words(const Session& session, size_t count) {
  if (session.request.words.size() > count)
    return fail(Code::kUsage, cat("unexpected word ", json_quote(session.request.words[count])));
  return {};
}

std::string duration_text(uint64_t microseconds) {
  char text[32];
  if (microseconds < 1000000)
    std::snprintf(text, sizeof text, "%.1f ms", static_cast<double>(microseconds) / 1e3);
  else
    std::snprintf(text, sizeof text, "%.2f s", static_cast<double>(microseconds) / 1e6);
  return text;
}

}  // namespace stasis::integration::cli
