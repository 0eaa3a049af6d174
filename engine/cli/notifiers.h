// SPDX-License-Identifier: Apache-2.0
// Notifiers of the command line: --action-script (criu(8)), --pidfile, and several in a row.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace stasis::cli {

// The tasks run already, or will whatever the answer is: a failure is a warning only.
bool failure_is_tolerated(std::string_view script);

// Runs options.action_script with CRTOOLS_SCRIPT_ACTION, CRTOOLS_IMAGE_DIR and, once it is known,
// CRTOOLS_INIT_PID; its output goes to the log.
class ScriptNotifier : public Notifier {
 public:
  explicit ScriptNotifier(const Options& options) : options_(options), root_pid_(options.pid) {}
  Result<void> notify(std::string_view script, pid_t pid = 0, int fd = -1) override;

 private:
  const Options& options_;
  pid_t root_pid_;
};

// Made before anything is restored, so that an existing file is found in time; holds the pid before the
// tasks run. Removed again unless keep() is called.
class PidfileNotifier : public Notifier {
 public:
  static Result<PidfileNotifier> create(std::string path);
  PidfileNotifier(PidfileNotifier&& other) noexcept = default;
  ~PidfileNotifier() override;
  Result<void> notify(std::string_view script, pid_t pid = 0, int fd = -1) override;
  Result<void> write(pid_t pid);
  void keep() { file_.reset(); }

 private:
  PidfileNotifier(std::string path, Fd file) : path_(std::move(path)), file_(std::move(file)) {}
  std::string path_;
  Fd file_;  // valid: still ours to remove
  bool written_ = false;
};

// Each in turn; the first failure ends it.
class NotifierList : public Notifier {
 public:
  void add(Notifier& notifier) { list_.push_back(&notifier); }
  Result<void> notify(std::string_view script, pid_t pid = 0, int fd = -1) override;

 private:
  std::vector<Notifier*> list_;
};

}  // namespace stasis::cli
