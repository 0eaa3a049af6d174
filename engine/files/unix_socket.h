// SPDX-License-Identifier: Apache-2.0
// What dump and restore of unix sockets have in common.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "engine/files/kind.h"

namespace stasis::files {

// unix_sk_entry.state, include/net/tcp_states.h; .uflags.
constexpr uint32_t kUnixEstablished = 1, kUnixClosed = 7, kUnixListening = 10;
constexpr uint32_t kUnixExternal = 1;

// Stands for a named socket outside that others are connected to; nobody has it open.
inline bool is_outside_peer(const pb::unix_sk_entry& usk) {
  return (usk.uflags() & kUnixExternal) && usk.state() == kUnixListening;
}
// The name as in UnixDiag: images have a path with its NUL.
std::string unix_name(const pb::unix_sk_entry& usk);

// unix_dump.cc, the steps of kUnixSocket.
bool matches_unix(const Candidate& c);
Result<void> check_unix(const Candidate& c, const DumpEnv& env);
Result<void> dump_unix(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry);
Result<void> finish_unix(const DumpEnv& env, DumpOutput& out);
// Of a socket whose other end is outside: an entry for that, or none if the client is to give another on restore.
Result<std::optional<pb::file_entry>> outside_peer(const Candidate& c, const DumpEnv& env, pb::unix_sk_entry& usk);
// A pid of the engine's namespace in the container's, where `ask` is told it; nullopt: it has none there.
Result<std::optional<pid_t>> pid_inside(const DumpEnv& env, pid_t pid, const std::function<pid_t()>& ask);
// unix_restore.cc
Result<Fd> restore_unix(const pb::file_entry& entry, RestoreEnv& env);
Result<void> connect_unix_sockets(RestoreEnv& env);

}  // namespace stasis::files
