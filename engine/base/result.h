// SPDX-License-Identifier: Apache-2.0
// Result<T>: a value or an Error. Derived from std::expected so that a dropped
// result warns (an alias would not). TRY unwraps or returns the error.
#pragma once

#include <expected>
#include <utility>

#include "engine/base/error.h"

namespace stasis {

template <class T>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
};

inline std::unexpected<Error> fail(Error error) { return std::unexpected<Error>(std::move(error)); }
inline std::unexpected<Error> fail(Code code, std::string message) {
  return std::unexpected<Error>(Error(code, std::move(message)));
}
// Like fail(Error::sys(...)): reads errno.
std::unexpected<Error> fail_sys(std::string_view operation, std::string_view object = {});
std::unexpected<Error> fail_sys(Code code, std::string_view operation, std::string_view object = {});

#define STASIS_CAT2(a, b) a##b
#define STASIS_CAT(a, b) STASIS_CAT2(a, b)
#define STASIS_TRY(name, expr)                                                   \
  __extension__({                                                                \
    auto name = (expr);                                                          \
    if (!name) return std::unexpected<::stasis::Error>(std::move(name).error()); \
    *std::move(name);                                                            \
  })
// The value of `expr`, or return its error from the enclosing function.
#define TRY(expr) STASIS_TRY(STASIS_CAT(try_result_, __COUNTER__), expr)
// The same, with context chained in front of the message.
#define STASIS_TRY_CTX(name, expr, ...)                                                                              \
  __extension__({                                                                                                    \
    auto name = (expr);                                                                                              \
    if (!name) return std::unexpected<::stasis::Error>(std::move(name).error().context(::stasis::cat(__VA_ARGS__))); \
    *std::move(name);                                                                                                \
  })
#define TRY_CTX(expr, ...) STASIS_TRY_CTX(STASIS_CAT(try_result_, __COUNTER__), expr, __VA_ARGS__)

}  // namespace stasis
