// SPDX-License-Identifier: Apache-2.0
// `criu swrk FD`: one client on a connected SOCK_SEQPACKET socket, one message per record,
// messages of proto/rpc.proto. One operation, then the process ends; questions may come before it.
#pragma once

#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/cli/operations.h"
#include "engine/cli/request.h"

namespace stasis::rpc {

struct Outcome {
  int status = 1;                     // of the process: 0 if the last request succeeded
  std::vector<std::string> exec_cmd;  // not empty: become this, with `log` as standard output and error
  Fd log;
};

// `defaults`: what the config files say; an error there is the answer to the first operation.
Outcome serve(Fd socket, const Result<cli::Request>& defaults, const cli::Engine& engine);

// The options of a request: config files, the message over them, its own config file over both.
Result<pb::criu_opts> effective_options(const pb::criu_opts& defaults, const pb::criu_opts& request);

// The parser of a request record; kProtocol.
Result<pb::criu_req> parse_request(std::string_view record);

}  // namespace stasis::rpc
