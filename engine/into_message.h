// SPDX-License-Identifier: Apache-2.0
// The one message from the engine to the process that becomes the root stub.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/memory/runs.h"
#include "engine/options.h"

namespace stasis::into {

struct Orders {
  uint64_t hole = 0;   // where the shared arena goes
  uint64_t nodes = 0;  // how many stubs there will be
  int32_t pool_base = 0;
  int32_t log_level = 0;
  // Where the receiver has something mapped, or may come to have: what it shares with its children keeps off that.
  static constexpr size_t kMaxTaken = 64;
  uint64_t taken_count = 0;
  uint64_t taken[kMaxTaken][2] = {};
};

// None if they are too many.
void put_taken(Orders& orders, const memory::Runs& taken);
memory::Runs get_taken(const Orders& orders);

// Images directory, arena, go, report, the engine's /proc.
constexpr size_t kFixedFds = 5;

struct Received {
  Orders orders;
  Fd images, arena, go, report, proc, log;
  std::vector<InheritFd> inherit;  // numbers of the receiver
  std::vector<Fd> held;            // that they name
};

// Descriptors 0 to 2 are not sent: the runtime gave the receiver the same ones. `log_fd` may be -1.
Result<void> send_orders(int socket, const Orders& orders, const int (&fixed)[kFixedFds], int log_fd,
                         const std::vector<InheritFd>& inherit);
Result<Received> receive_orders(int socket);

}  // namespace stasis::into
