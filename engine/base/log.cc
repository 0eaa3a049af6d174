// SPDX-License-Identifier: Apache-2.0
#include "engine/base/log.h"

#include <time.h>
#include <unistd.h>

#include <cstdio>

namespace stasis::log {
namespace {

struct State {
  int fd = -1;
  int mirror = -1;
  Level level = Level::kWarning;
  timespec start{};
};
State state;  // the one mutable global: a log that had to be passed everywhere would be passed nowhere

}  // namespace

void open(int fd, Level level) {
  state.fd = fd;
  state.level = level;
  clock_gettime(CLOCK_MONOTONIC, &state.start);
}

void also_to(int fd) { state.mirror = fd; }
Level level() { return state.level; }
int fd() { return state.fd; }

void write(Level level, std::string_view text) {
  if (level > state.level) return;
  static constexpr const char* kNames[] = {"", "Error", "Warn ", "Info ", "Debug"};
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  long sec = now.tv_sec - state.start.tv_sec, usec = (now.tv_nsec - state.start.tv_nsec) / 1000;
  if (usec < 0) sec -= 1, usec += 1000000;
  char head[64];
  snprintf(head, sizeof(head), "(%02ld.%06ld) %s ", sec, usec, kNames[static_cast<int>(level)]);
  std::string line = head;
  line += text;
  line += '\n';
  // A log that cannot be written must not stop a restore: the result is ignored on purpose.
  if (state.fd >= 0) (void)!::write(state.fd, line.data(), line.size());
  if (state.mirror >= 0 && level <= Level::kWarning) (void)!::write(state.mirror, line.data(), line.size());
}

}  // namespace stasis::log
