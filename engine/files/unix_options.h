// SPDX-License-Identifier: Apache-2.0
// Options of unix(7) sockets: those that CRIU's message has a field for, and those that go into our manifest.
#pragma once

#include "engine/base/result.h"
#include "engine/files/kind.h"
#include "proto/sockets.pb.h"

namespace stasis::files {

Result<void> dump_unix_options(const Candidate& c, const DumpEnv& env, pb::unix_sk_entry& entry, DumpOutput& out);
// Room for everything that was queued; before anything is sent.
Result<void> widen_unix_buffers(int socket);
// When its queue is filled: some of them change what is received or sent.
Result<void> restore_unix_options(int socket, const pb::unix_sk_entry& entry, const pb::socket_extra* extra);

}  // namespace stasis::files
