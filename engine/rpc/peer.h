// SPDX-License-Identifier: Apache-2.0
// Who is at the other end of a service's connection, and taking on his rights.
#pragma once

#include <sys/types.h>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/options.h"

namespace stasis::rpc {

struct Peer {
  pid_t pid = 0;
  uint32_t uid = 0, gid = 0;  // effective, when it connected
  Fd pidfd;                   // so that another process of the same number is not taken for it
};

// The process that connected. Without SO_PEERPIDFD (6.5) one that ended before we look may be mistaken for its
// successor in the number, but only for one of the same user.
Result<Peer> identify(int socket);
// To be asked after anything was looked up by the number: it was the peer's then.
Result<void> check_alive(const Peer& peer);

// For a peer that is not root, in a process of his own: refuses one that is confined more than we are (another
// namespace or root, seccomp, no_new_privs, a security label), for his tasks would escape that; then this process
// becomes the user for good, within his limits, and keeps CAP_CHECKPOINT_RESTORE only.
Result<Client> become_client(int socket, const Peer& peer);

}  // namespace stasis::rpc
