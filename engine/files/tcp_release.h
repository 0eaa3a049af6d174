// SPDX-License-Identifier: Apache-2.0
// Restored connections stay in repair mode until everything else has succeeded: a restore that fails is not heard of by
// their peers.
#pragma once

#include <vector>

#include "engine/files/kind.h"
#include "engine/files/tcp.h"

namespace stasis::files {

class HeldConnections {
 public:
  // Copies of those that the root task has under the numbers of the pool.
  static Result<HeldConnections> take(int root_pidfd, const RestoreEnv& env);
  // They live on from here.
  Result<void> release();

 private:
  struct Held {
    Fd socket;
    bool reuse = false;
    std::vector<sock_filter> filter;
    std::optional<Address> to;  // of one that is to be begun anew
  };
  std::vector<Held> held_;
};

// Of all connections of the images.
Result<void> check_streams(const image::Reader& images, const std::map<uint32_t, pb::file_entry>& files);

}  // namespace stasis::files
