// SPDX-License-Identifier: Apache-2.0
// NOTIFY over the request's socket: a response goes out, a request of type NOTIFY comes back, nothing else between.
#pragma once

#include "engine/engine.h"

namespace stasis::rpc {

class RpcNotifier : public Notifier {
 public:
  // Silent unless the client asked for notifications.
  RpcNotifier(int socket, bool wanted) : socket_(socket), wanted_(wanted) {}
  Result<void> notify(std::string_view script, pid_t pid = 0, int fd = -1) override;

 private:
  Result<void> exchange(std::string_view script, pid_t pid, int fd);
  int socket_;
  bool wanted_;
};

}  // namespace stasis::rpc
