// SPDX-License-Identifier: Apache-2.0
// `criu swrk FD`, and each connection of `criu service`: one client on a connected SOCK_SEQPACKET socket, one message
// per record, messages of proto/rpc.proto. One operation, then the process ends; questions may come before it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/cli/operations.h"
#include "engine/cli/request.h"
#include "engine/rpc/peer.h"

namespace stasis::rpc {

struct Outcome {
  int status = 1;                     // of the process: 0 if the last request succeeded
  std::vector<std::string> exec_cmd;  // not empty: become this, with `log` as standard output and error
  Fd log;
};

// How a connection was made. By default: swrk, whose client is our parent and as privileged as we are.
struct Connection {
  const Peer* peer = nullptr;    // of a service's client
  std::optional<Client> client;  // it is not root, and this process has its rights
  std::optional<Error> refusal;  // the answer to whatever it asks
  int stop = -1;                 // hangs up when no new request is to be taken
};

// `defaults`: what the config files say; an error there is the answer to the first operation.
Outcome serve(Fd socket, const Result<cli::Request>& defaults, const cli::Engine& engine,
              const Connection& connection = {});

// kPermission if the options hold what a client that is not root may not ask for.
Result<void> check_client_options(const pb::criu_opts& opts);

// The options of a request: config files, the message over them, its own config file over both.
Result<pb::criu_opts> effective_options(const pb::criu_opts& defaults, const pb::criu_opts& request);

// The parser of a request record; kProtocol.
Result<pb::criu_req> parse_request(std::string_view record);

}  // namespace stasis::rpc
