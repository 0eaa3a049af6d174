// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/notifier.h"

#include "engine/base/interrupt.h"
#include "engine/base/log.h"
#include "engine/base/strings.h"
#include "engine/cli/notifiers.h"
#include "engine/rpc/responses.h"
#include "engine/rpc/server.h"
#include "engine/rpc/wire.h"

namespace stasis::rpc {

Result<void> RpcNotifier::exchange(std::string_view script, pid_t pid, int fd) {
  pb::criu_resp response = success(pb::NOTIFY);
  response.mutable_notify()->set_script(std::string(script));
  if (pid > 0) response.mutable_notify()->set_pid(pid);
  TRY_CTX(send(socket_, response, fd), "notify ", script);
  TRY(wait_readable(socket_));
  const auto record = TRY_CTX(receive(socket_), "notify ", script);
  if (!record) return fail(Code::kProtocol, cat("notify ", script, ": the client went away"));
  const pb::criu_req reply = TRY_CTX(parse_request(*record), "notify ", script);
  if (reply.type() != pb::NOTIFY)
    return fail(Code::kProtocol,
                cat("notify ", script, ": the client sent a request of type ", static_cast<int>(reply.type())));
  if (!reply.notify_success()) return fail(Code::kHookFailed, cat("notify ", script, ": the client reports failure"));
  if (reply.opts().external_size() > 0) log::warning("notify ", script, ": the client names external files, ignoring");
  return {};
}

Result<void> RpcNotifier::notify(std::string_view script, pid_t pid, int fd) {
  // runc takes the first descriptor without a look, and libcriu has room for one.
  const bool terminal = script == "orphan-pts-master";
  if (terminal && fd < 0) return fail(Code::kInternal, "orphan-pts-master without a descriptor");
  if (!wanted_) {
    if (terminal)
      return fail(Code::kBadOption, "nobody takes the container's terminal: the request has no notify_scripts");
    return {};
  }
  log::debug("notify ", script);
  auto done = exchange(script, pid, terminal ? fd : -1);
  if (done || !cli::failure_is_tolerated(script)) return done;
  log::warning(done.error().line(), ", ignoring");
  return {};
}

}  // namespace stasis::rpc
