// SPDX-License-Identifier: Apache-2.0
// Options of tcp(7) and udp(7) sockets: those that CRIU's message has a field for, and those that
// go into our manifest.
#pragma once

#include "engine/base/result.h"
#include "engine/files/kind.h"
#include "proto/manifest.pb.h"
#include "proto/sockets.pb.h"

namespace stasis::files {

// A number option; nullopt if this socket does not have it.
std::optional<int> get_int(int socket, int level, int name);
Result<void> set_int(int socket, int level, int name, int value, std::string_view what);

// "MPTCP socket" and the like, of sockets that have no kind.
std::string describe_socket(int socket);
// A socket belongs to the namespace its maker was in, and may have come from elsewhere.
Result<void> check_socket_namespace(const Candidate& c, const DumpEnv& env);
const pb::socket_extra* find_extra(const RestoreEnv& env, uint32_t file_id);

// What the socket has that no option can bring back; no side effects.
Result<void> check_inet_options(const Candidate& c, const DumpEnv& env, int type);

// `more`: what else the manifest is to say of the socket.
Result<void> dump_inet_options(const Candidate& c, const DumpEnv& env, pb::inet_sk_entry& entry, DumpOutput& out,
                               const pb::socket_extra* more = nullptr);
Result<void> restore_buffers(int socket, const pb::sk_opts_entry& opts);
// Before bind(2). SO_REUSEADDR is left to the caller.
Result<void> restore_inet_options(int socket, const pb::inet_sk_entry& entry, const pb::socket_extra* extra);

}  // namespace stasis::files
