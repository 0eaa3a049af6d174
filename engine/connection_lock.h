// SPDX-License-Identifier: Apache-2.0
// The network lock of a checkpoint: TCP connections of a stopped tree stand still until they are let go or their tasks
// are killed, and afterwards nothing answers for them until they are restored.
#pragma once

#include <optional>
#include <string>

#include "engine/files/tcp.h"
#include "engine/image/writer.h"
#include "engine/janitor.h"

namespace stasis {

class ConnectionLock {
 public:
  // `own_net`: the network namespace ends with the container.
  static Result<ConnectionLock> take(const procfs::Procfs& proc, const tasks::FrozenTree& tree, bool own_net);
  ConnectionLock(ConnectionLock&&) = default;
  ConnectionLock& operator=(ConnectionLock&&) = delete;
  ~ConnectionLock();  // lets them go

  const files::LockedSockets& sockets() const { return sockets_; }
  void release();
  // What will drop the packets for connections that are gone; the manifest says what to remove at restore.
  Result<void> outlive(image::Writer& images);
  // Just before the tasks are killed.
  void let_die();

 private:
  ConnectionLock() = default;
  void remove_table();
  files::LockedSockets sockets_;
  int root_pidfd_ = -1;
  bool own_net_ = false, added_ = false;
  std::string table_;
  std::optional<Janitor> janitor_;
};

}  // namespace stasis
