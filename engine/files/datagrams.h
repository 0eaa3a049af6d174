// SPDX-License-Identifier: Apache-2.0
// What udp(7) sockets have received and nobody has read, and the multicast groups that sockets are in.
#pragma once

#include "engine/files/kind.h"
#include "proto/manifest.pb.h"
#include "proto/sockets.pb.h"

namespace stasis::files {

// Looks at the queue and leaves it as it is. What cannot be kept is told by a warning.
Result<void> dump_datagrams(const Candidate& c, const DumpEnv& env, const pb::inet_sk_entry& isk,
                            pb::socket_extra& extra, DumpOutput& out);
// Into the queue of a new socket that is not bound and has no options yet, and is so again afterwards.
Result<void> restore_datagrams(int socket, const pb::inet_sk_entry& isk, const pb::socket_extra& extra,
                               const std::vector<Packet>& packets);

Result<void> dump_groups(const Candidate& c, const DumpEnv& env, pb::socket_extra& extra);
Result<void> restore_groups(int socket, const pb::socket_extra& extra);

// Values of the manifest that make no sense. `packets`: how many sk-queues.img has.
Result<void> check_socket_extra(const pb::socket_extra& extra, size_t packets);

}  // namespace stasis::files
