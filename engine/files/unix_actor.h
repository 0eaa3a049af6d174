// SPDX-License-Identifier: Apache-2.0
// The kernel remembers who has connected a socket and who has sent a message (SO_PEERCRED, SCM_CREDENTIALS). On restore
// those tasks do not exist yet: somebody takes their number and ids for a moment.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>

#include "engine/base/result.h"

namespace stasis::files {

struct UnixActor {
  pid_t pid = 0;  // 0: does not matter
  std::optional<uint32_t> uid, gid;
};

// `call` changes nothing but descriptors: it may run in a child that shares them.
Result<void> act_as(const UnixActor& who, const std::function<Result<void>()>& call);

// What `ask` says in the pid namespace of the process whose pid namespace `ns` is; 0: nothing. Of a task that has ended
// nothing but its number in a namespace is left, and only somebody in that namespace is told it.
Result<pid_t> ask_inside(int ns, const std::function<pid_t()>& ask);

}  // namespace stasis::files
