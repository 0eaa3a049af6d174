// SPDX-License-Identifier: Apache-2.0
// Where the engine and the waiting process of a runtime's container meet: a socket in the container's scaffold, which
// goes away with it.
#pragma once

#include <sys/types.h>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/options.h"

namespace stasis::integration::into {

class Meeting {
 public:
  // `pid`: the first process of a container whose mounts are made. It may be running already.
  static Result<Meeting> listen(pid_t pid);
  // Waits for as long as that process lives. `joined`: as IntoTask has it.
  Result<IntoTask> wait(unsigned long joined) const;

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }

 private:
  pid_t pid_ = 0;
  Fd pidfd_, socket_;
};

}  // namespace stasis::integration::into
