// SPDX-License-Identifier: Apache-2.0
// A child that outlives the engine if that is killed, to undo what the kernel does not undo
// for a dead process: control group directories, a freezer that has to be frozen again.
#pragma once

#include <sys/types.h>

#include <functional>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis {

class Janitor {
 public:
  // `clean_up` runs in the child, after the engine's death without dismissal.
  static Result<Janitor> start(std::function<void()> clean_up);
  Janitor(Janitor&& other) noexcept;
  Janitor& operator=(Janitor&&) = delete;
  // Dismisses: the engine lives, and undoes or keeps things itself.
  ~Janitor();

 private:
  Janitor() = default;
  Fd pipe_;
  pid_t pid_ = 0;
};

}  // namespace stasis
