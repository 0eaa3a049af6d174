// SPDX-License-Identifier: Apache-2.0
#include "engine/base/error.h"

#include <cerrno>
#include <cstring>

#include "engine/base/result.h"

namespace stasis {

const std::vector<CodeInfo>& all_codes() {
  static const std::vector<CodeInfo> table = {
#define STASIS_ERROR(name, id, cause, remedy) {Code::name, id, cause, remedy},
#include "engine/base/errors.def"
#undef STASIS_ERROR
  };
  return table;
}

const CodeInfo& code_info(Code code) { return all_codes()[static_cast<size_t>(code)]; }

Error Error::sys(Code code, std::string_view operation, std::string_view object) {
  const int err = errno;
  std::string text(operation);
  if (!object.empty()) text += cat(" ", object);
  text += cat(": ", strerrordesc_np(err) ? strerrordesc_np(err) : "unknown error");
  return Error(code, std::move(text)).about(std::string(object)).with_errno(err);
}

Error Error::sys(std::string_view operation, std::string_view object) {
  switch (errno) {
    case EPERM:
    case EACCES: return sys(Code::kPermission, operation, object);
    case ENOSPC:
    case EDQUOT: return sys(Code::kNoSpace, operation, object);
    case ENOENT: return sys(Code::kNotFound, operation, object);
    default: return sys(Code::kSystem, operation, object);
  }
}

std::unexpected<Error> fail_sys(std::string_view operation, std::string_view object) {
  return fail(Error::sys(operation, object));
}
std::unexpected<Error> fail_sys(Code code, std::string_view operation, std::string_view object) {
  return fail(Error::sys(code, operation, object));
}

std::string Error::line() const {
  std::string text = cat(code_info(code_).id, ": ", message_);
  if (!object_.empty() && message_.find(object_) == std::string::npos) text += cat(" [", object_, "]");
  if (!also_.empty()) text += cat(" (and ", also_.size(), " more)");
  return text;
}

std::string Error::pretty() const {
  const auto& info = code_info(code_);
  std::string out = cat(info.id, ": ", message_);
  if (!object_.empty() && message_.find(object_) == std::string::npos) out += cat(" [", object_, "]");
  out += cat("\n  cause:  ", info.cause, "\n  remedy: ", info.remedy, "\n");
  for (const auto& other : also_) out += other.pretty();
  return out;
}

std::string json_quote(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c < 0x20 || c == 0x7f) {
      out += cat("\\u00", kHex[c >> 4], kHex[c & 15]);
    } else if (c < 0x80) {
      out += static_cast<char>(c);
    } else {
      const size_t want = c >= 0xf0 && c < 0xf5 ? 3 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xc2 && c < 0xe0 ? 1 : 0;
      bool ok = want > 0 && i + want < text.size();
      for (size_t k = 1; ok && k <= want; ++k) ok = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
      if (ok) {
        out += text.substr(i, want + 1);
        i += want;
      } else {
        out += "\\ufffd";
      }
    }
  }
  return out + '"';
}

std::string Error::json() const {
  const auto& info = code_info(code_);
  std::string out = cat("{\"code\":", json_quote(info.id), ",\"message\":", json_quote(message_),
                        ",\"object\":", json_quote(object_), ",\"errno\":", errno_,
                        ",\"cause\":", json_quote(info.cause), ",\"remedy\":", json_quote(info.remedy), ",\"also\":[");
  for (size_t i = 0; i < also_.size(); ++i) out += (i ? "," : "") + also_[i].json();
  return out + "]}";
}

}  // namespace stasis
