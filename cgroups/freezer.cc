// SPDX-License-Identifier: Apache-2.0
#include "cgroups/freezer.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "cgroups/control_file.h"
#include "cgroups/path.h"
#include "engine/base/io.h"
#include "engine/base/log.h"

namespace stasis::cgroups {

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kThawMs = 500;
constexpr int kRetryMs = 100;  // v1: how long FREEZING may last before another try

std::unexpected<Error> freezer_error(Error error, const std::string& dir) {
  return fail(std::move(error).with_code(Code::kFreezer).about(dir));
}

int left_ms(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::max<long long>(left, 0));
}

bool event_frozen(std::string_view text) {
  for (std::string_view line : lines(text))
    if (line == "frozen 1") return true;
  return false;
}

Result<void> collect(int dir_fd, const std::string& file, int depth, std::vector<pid_t>& out) {
  if (depth > 128) return fail(Code::kFreezer, "cgroups nested more than 128 deep");
  const std::string text = TRY(read_control(dir_fd, file));
  for (std::string_view line : lines(text))
    if (const auto pid = parse_int<pid_t>(line)) out.push_back(*pid);
  const Listing listing = TRY(list(dir_fd));
  for (const std::string& name : listing.dirs) {
    auto child = open_at(dir_fd, name, O_RDONLY | O_DIRECTORY);
    if (!child) continue;  // removed meanwhile
    TRY(collect(child->get(), file, depth + 1, out));
  }
  return {};
}

}  // namespace

Result<Freezer> Freezer::open(const std::string& dir) {
  Freezer out;
  out.name_ = dir;
  auto fd = open_at(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY);
  if (!fd) return freezer_error(std::move(fd).error(), dir);
  out.dir_ = *std::move(fd);
  if (has_control(out.dir_.get(), "cgroup.freeze")) {
    out.v2_ = true;
  } else if (!has_control(out.dir_.get(), "freezer.state")) {
    return fail(Error(Code::kFreezer, cat(dir, " has neither freezer.state nor cgroup.freeze in it")).about(dir));
  }
  auto now = out.state();
  if (!now) return freezer_error(std::move(now).error(), dir);
  const std::string self = out.v2_ ? "cgroup.freeze" : "freezer.self_freezing";
  const auto asked = read_control(out.dir_.get(), self);
  out.self_frozen_ = asked ? *asked == "1" : *now != State::kThawed;
  // FREEZING counts: whoever asked for it wants it frozen. A v2 cgroup without tasks reports "frozen 0" for a moment.
  out.was_frozen_ = *now != State::kThawed || out.self_frozen_;
  return out;
}

Freezer::Freezer(Freezer&& other) noexcept
    : dir_(std::move(other.dir_)),
      name_(std::move(other.name_)),
      v2_(other.v2_),
      was_frozen_(other.was_frozen_),
      self_frozen_(other.self_frozen_),
      changed_(std::exchange(other.changed_, false)) {}

Freezer::~Freezer() {
  if (dir_) put_back();
}

void Freezer::put_back() {
  if (!changed_) return;
  changed_ = false;
  const auto done = order(self_frozen_);
  if (!done && done.error().sys_errno() != ENODEV)
    log::warning("freezer ", name_, ": ", done.error().line(), ", ignoring");
}

Result<Freezer::State> Freezer::state() const {
  if (v2_) {
    const std::string events = TRY(read_control(dir_.get(), "cgroup.events"));
    if (event_frozen(events)) return State::kFrozen;
    const std::string wish = TRY(read_control(dir_.get(), "cgroup.freeze"));
    return wish.starts_with('1') ? State::kFreezing : State::kThawed;
  }
  const std::string text = TRY(read_control(dir_.get(), "freezer.state"));
  if (text == "FROZEN") return State::kFrozen;
  return text == "FREEZING" ? State::kFreezing : State::kThawed;
}

Result<void> Freezer::order(bool frozen) const {
  if (v2_) return write_control(dir_.get(), "cgroup.freeze", frozen ? "1" : "0");
  return write_control(dir_.get(), "freezer.state", frozen ? "FROZEN" : "THAWED");
}

Result<void> Freezer::freeze(int timeout_ms) {
  changed_ = true;
  auto done = order(true);
  if (done) done = wait_frozen(timeout_ms);
  if (!done) {
    put_back();
    const Code code = done.error().code() == Code::kTimeout ? Code::kTimeout : Code::kFreezer;
    return fail(std::move(done).error().with_code(code).about(name_));
  }
  return {};
}

Result<void> Freezer::wait_frozen(int timeout_ms) const {
  const auto start = Clock::now();
  const auto deadline = start + std::chrono::milliseconds(timeout_ms);
  Fd events;
  if (v2_) events = TRY(open_at(dir_.get(), "cgroup.events", O_RDONLY));
  auto next_try = start + std::chrono::milliseconds(kRetryMs);
  int pause_ms = 0;
  while (true) {
    if (TRY(state()) == State::kFrozen) return {};
    const int left = left_ms(deadline);
    if (left == 0)
      return fail(Code::kTimeout, cat("the tasks in ", name_, " did not freeze within ", timeout_ms, " ms"));
    if (v2_) {
      // kernfs wakes pollers on a change; the short limit covers a change between read and poll.
      pollfd wait{events.get(), POLLPRI, 0};
      ::poll(&wait, 1, std::min(left, 10));
      continue;
    }
    // v1: the first reads move the state forward, so start without a pause. A task forking or exiting just
    // then can leave the group FREEZING for good (freezer-subsystem.rst); thawing and freezing anew helps.
    if (Clock::now() >= next_try) {
      TRY(order(false));
      TRY(order(true));
      next_try = Clock::now() + std::chrono::milliseconds(kRetryMs);
    }
    ::poll(nullptr, 0, std::min(left, pause_ms));
    pause_ms = std::min(pause_ms + 1, 5);
  }
}

Result<void> Freezer::thaw() {
  changed_ = true;
  auto done = order(false);
  if (!done) return freezer_error(std::move(done).error(), name_);
  const auto deadline = Clock::now() + std::chrono::milliseconds(kThawMs);
  while (true) {
    const auto now = state();
    if (!now) return freezer_error(Error(now.error()), name_);
    if (*now == State::kThawed) return {};
    if (left_ms(deadline) == 0)
      return fail(Error(Code::kFreezer, cat(name_, " stays frozen: a cgroup above it is frozen")).about(name_));
    ::poll(nullptr, 0, 1);
  }
}

Result<std::vector<pid_t>> Freezer::processes() const {
  std::vector<pid_t> out;
  auto done = collect(dir_.get(), "cgroup.procs", 0, out);
  if (!done) return freezer_error(std::move(done).error(), name_);
  std::ranges::sort(out);
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

Result<std::vector<pid_t>> Freezer::threads() const {
  std::vector<pid_t> out;
  auto done = collect(dir_.get(), v2_ ? "cgroup.threads" : "tasks", 0, out);
  if (!done) return freezer_error(std::move(done).error(), name_);
  std::ranges::sort(out);
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace stasis::cgroups
