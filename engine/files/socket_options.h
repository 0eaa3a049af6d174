// SPDX-License-Identifier: Apache-2.0
// Options that sockets of every family have alike, socket(7).
#pragma once

#include "engine/base/result.h"
#include "proto/sockets.pb.h"

namespace stasis::files {

constexpr int kBufLock = 72;  // SO_BUF_LOCK, since 5.15

// Sizes of the buffers and whether they are locked, time limits, lingering.
Result<void> dump_common_options(int socket, pb::sk_opts_entry& opts);
// Time limits and lingering; buffers are each family's own affair.
Result<void> restore_common_options(int socket, const pb::sk_opts_entry& opts);

}  // namespace stasis::files
