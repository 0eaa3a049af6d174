// SPDX-License-Identifier: Apache-2.0
// Tells a person what the engine is at. On a terminal one line is rewritten at each phase,
// with the time so far; elsewhere nothing but the result is printed, as plain lines.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "engine/engine.h"

namespace stasis::integration::cli {

class Progress : public Notifier {
 public:
  // `next` may be null; else it is asked after each phase was shown, and may refuse.
  Progress(std::string title, bool quiet, Notifier* next);
  ~Progress() override;
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  using Hook = std::function<Result<void>(pid_t pid, int fd)>;
  // Runs `hook` when the phase of this name is reached, before `next`.
  void on(std::string script, Hook hook);

  Result<void> notify(std::string_view script, pid_t pid, int fd) override;
  // Removes the line from the terminal.
  void clear();
  uint64_t elapsed_us() const;

 private:
  void show(std::string_view phase);

  std::string title_;
  bool live_;  // standard error is a terminal and somebody wants to look
  Notifier* next_;
  std::vector<std::pair<std::string, Hook>> hooks_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace stasis::integration::cli
