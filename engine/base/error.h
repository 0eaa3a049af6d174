// SPDX-License-Identifier: Apache-2.0
// What a failure is: a stable code (errors.def: identifier, cause, remedy), the
// object it is about, the errno if a system call said so, and a message. One
// Error may carry others (`also`), so that a check can report every obstacle.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/strings.h"

namespace stasis {

enum class Code {
#define STASIS_ERROR(name, id, cause, remedy) name,
#include "engine/base/errors.def"
#undef STASIS_ERROR
};

struct CodeInfo {
  Code code;
  std::string_view id;      // "STASIS-E-..."; never changes once released
  std::string_view cause;   // what happened, in general
  std::string_view remedy;  // what would make it work
};

const CodeInfo& code_info(Code code);
// The whole table, in declaration order.
const std::vector<CodeInfo>& all_codes();

class Error {
 public:
  Error(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  // "OPERATION OBJECT: strerror", errno read here.
  static Error sys(Code code, std::string_view operation, std::string_view object = {});
  // Picks kPermission, kNoSpace, kNotFound or kSystem from errno.
  static Error sys(std::string_view operation, std::string_view object = {});

  Error&& context(std::string text) && {
    message_ = text + ": " + message_;
    return std::move(*this);
  }
  // The thing it is about: "pid 12 fd 3", "mount /proc", "/path/inventory.img".
  Error&& about(std::string object) && {
    object_ = std::move(object);
    return std::move(*this);
  }
  Error&& with_code(Code code) && {
    code_ = code;
    return std::move(*this);
  }
  Error&& with_errno(int err) && {
    errno_ = err;
    return std::move(*this);
  }

  Code code() const { return code_; }
  int sys_errno() const { return errno_; }
  const std::string& message() const { return message_; }
  const std::string& object() const { return object_; }
  std::vector<Error>& also() { return also_; }
  const std::vector<Error>& also() const { return also_; }

  // "STASIS-E-X: message [object]": one line, no trailing newline.
  std::string line() const;
  // Several lines for a terminal: the line, the cause, the remedy, and those of `also`.
  std::string pretty() const;
  // {"code","message","object","errno","cause","remedy","also":[...]}
  std::string json() const;

 private:
  Code code_;
  int errno_ = 0;
  std::string message_;
  std::string object_;
  std::vector<Error> also_;
};

// A JSON string literal, quotes included; invalid UTF-8 bytes become \ufffd.
std::string json_quote(std::string_view text);

}  // namespace stasis
