// SPDX-License-Identifier: Apache-2.0
// The engine's log: plain lines "(seconds.micros) LEVEL text" to one descriptor.
// Library code logs at debug only, and warnings for what it tolerates ("..., ignoring");
// errors are values and are logged once, by the doors.
#pragma once

#include <string_view>

#include "engine/base/strings.h"

namespace stasis::log {

enum class Level { kError = 1, kWarning = 2, kInfo = 3, kDebug = 4 };  // CRIU's -v numbers

// Where lines go (not owned; -1: nowhere) and how many. Inherited over clone.
void open(int fd, Level level);
// Copies of error and warning lines also go to this descriptor (-1: none).
void also_to(int fd);
Level level();
int fd();
void write(Level level, std::string_view text);

template <class... P>
void error(const P&... parts) {
  write(Level::kError, cat(parts...));
}
template <class... P>
void warning(const P&... parts) {
  if (level() >= Level::kWarning) write(Level::kWarning, cat(parts...));
}
template <class... P>
void info(const P&... parts) {
  if (level() >= Level::kInfo) write(Level::kInfo, cat(parts...));
}
template <class... P>
void debug(const P&... parts) {
  if (level() >= Level::kDebug) write(Level::kDebug, cat(parts...));
}

}  // namespace stasis::log
