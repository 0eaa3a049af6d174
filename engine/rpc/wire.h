// SPDX-License-Identifier: Apache-2.0
// Records on a SOCK_SEQPACKET socket, unix(7): one message each, no length prefix.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "engine/base/result.h"
#include "proto/rpc.pb.h"

namespace stasis::rpc {

constexpr size_t kMaxRequest = 1u << 20;  // clients send some KiB; a thousand external mounts are 100 KiB

// The next record; nullopt: the peer closed. A larger one is taken off the socket and refused (kProtocol).
Result<std::optional<std::string>> receive(int socket);
// `fd` (or -1) goes along as SCM_RIGHTS.
Result<void> send(int socket, const pb::criu_resp& response, int fd = -1);
// SO_PEERCRED: the process that made the socket pair, or connected.
Result<pid_t> peer_pid(int socket);
// Refuses what is not a SOCK_SEQPACKET socket.
Result<void> check_socket(int socket);

}  // namespace stasis::rpc
