// SPDX-License-Identifier: Apache-2.0
// A container that a runtime makes around our waiting process, as a scope: unless it is committed, the runtime deletes
// it again, also when we are killed.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/janitor.h"
#include "engine/options.h"
#include "integration/into/runtime.h"
#include "integration/into/scaffold.h"

namespace stasis::integration::into {

class Launch {
 public:
  // Refuses what can be refused; makes nothing. `bundle` is absolute; `follow`: the container is to be our child.
  static Result<Launch> plan(const Runtime& runtime, const std::string& id, const std::string& bundle, bool follow);
  Launch(Launch&&) noexcept;
  Launch& operator=(Launch&&) = delete;
  ~Launch();

  // Has the container made and started, and its record put right.
  Result<IntoTask> start();
  // The container lives on; what only the start needed goes.
  void commit();
  // The container has ended: the runtime forgets it.
  Result<void> forget();

 private:
  struct State;
  explicit Launch(std::unique_ptr<State> state);
  Result<void> make_container();

  std::unique_ptr<State> state_;
  std::optional<Janitor> janitor_;
};

}  // namespace stasis::integration::into
