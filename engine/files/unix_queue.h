// SPDX-License-Identifier: Apache-2.0
// What waits in the receive queue of a unix socket: looked at without taking it, and sent again.
#pragma once

#include <sys/socket.h>

#include <optional>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::files {

struct UnixMessage {
  std::string bytes;
  std::string source;        // name of the sender (SOCK_DGRAM), as in UnixDiag
  std::vector<Fd> rights;    // SCM_RIGHTS; close-on-exec
  std::optional<ucred> who;  // SCM_CREDENTIALS, as the caller's namespaces see them
  int offset = 0;            // in the queue, for SO_PEEK_OFF
};

// All of it, from a copy of the socket whose tasks stand still. A stream is cut where descriptors or credentials
// change.
Result<std::vector<UnixMessage>> peek_unix_queue(int socket, int type, const std::string& name);

// The pid of SCM_CREDENTIALS of such a message, as the caller's namespaces see it; 0: it cannot be looked at again.
pid_t peek_unix_sender(int socket, const UnixMessage& message);

struct UnixSend {
  int socket = -1;
  std::string to;  // address, as in UnixDiag, from the current directory; empty: what it is connected to
  std::string_view bytes;
  std::vector<int> rights;
  std::optional<ucred> who;
};
// Never waits.
Result<void> send_unix(const UnixSend& what, const std::string& name);

}  // namespace stasis::files
