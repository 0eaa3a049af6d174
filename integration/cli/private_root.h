// SPDX-License-Identifier: Apache-2.0
// The new root of a restored container must be a mount point of the engine's. Nobody else should
// see that mount: it is made in a mount namespace of the engine's own, which ends with it.
#pragma once

#include <string>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::integration::cli {

class PrivateRoot {
 public:
  // Moves this process into a new mount namespace and binds `root` onto itself there.
  static Result<PrivateRoot> make(const std::string& root);
  // Back to the namespace and the directory we came from, for waiting or for the supervisor.
  Result<void> leave();

 private:
  Fd old_namespace_;
  Fd old_directory_;
};

}  // namespace stasis::integration::cli
