// SPDX-License-Identifier: Apache-2.0
#include "integration/cli/progress.h"

#include <unistd.h>

#include "integration/cli/session.h"

namespace stasis::integration::cli {
namespace {

// What the phase that starts with this notification is about.
std::string_view phase_text(std::string_view script) {
  static constexpr std::pair<std::string_view, std::string_view> kTexts[] = {
      {"pre-dump", "freezing the tasks"},
      {"network-lock", "collecting"},
      {"query-ext-files", "writing the images"},
      {"post-dump", "committing"},
      {"pre-restore", "making the ground"},
      {"setup-namespaces", "setting up namespaces and mounts"},
      {"post-setup-namespaces", "rebuilding the tasks"},
      {"post-restore", "releasing the tasks"},
  };
  for (const auto& [name, text] : kTexts)
    if (name == script) return text;
  return {};
}

void say(const std::string& text) {
  // A terminal that is gone is no reason to fail.
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

}  // namespace

Progress::Progress(std::string title, bool quiet, Notifier* next)
    : title_(std::move(title)),
      live_(!quiet && ::isatty(STDERR_FILENO)),
      next_(next),
      start_(std::chrono::steady_clock::now()) {
  show("checking");
}

Progress::~Progress() { clear(); }

void Progress::on(std::string script, Hook hook) { hooks_.emplace_back(std::move(script), std::move(hook)); }

Result<void> Progress::notify(std::string_view script, pid_t pid, int fd) {
  if (const std::string_view text = phase_text(script); !text.empty()) show(text);
  for (const auto& [name, hook] : hooks_)
    if (name == script) TRY(hook(pid, fd));
  if (next_) return next_->notify(script, pid, fd);
  return {};
}

uint64_t Progress::elapsed_us() const {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start_).count());
}

void Progress::show(std::string_view phase) {
  if (live_) say(cat("\r\033[K", title_, ": ", phase, " (", duration_text(elapsed_us()), ")"));
}

void Progress::clear() {
  if (live_) say("\r\033[K");
}

}  // namespace stasis::integration::cli
