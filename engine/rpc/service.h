// SPDX-License-Identifier: Apache-2.0
// `criu service`: the same requests on a listening SOCK_SEQPACKET socket. Every connection is served by a process of
// its own, so that nothing of one client is there for another, and a crash is that client's only.
#pragma once

#include <string>

#include "engine/cli/operations.h"
#include "engine/cli/request.h"

namespace stasis::rpc {

struct ServiceOptions {
  std::string address = "criu_service.socket";
  std::string work_dir;  // entered first; socket, pidfile and log are relative to it
  std::string pidfile;
  bool daemon = false;
};

// Ends after SIGTERM or SIGINT, when the requests that run are finished; the exit status. `request`: what config files
// and command line say; the options of the service itself are taken out of it.
int run_service(const ServiceOptions& options, cli::Request request, const cli::Engine& engine);

}  // namespace stasis::rpc
