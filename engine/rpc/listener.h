// SPDX-License-Identifier: Apache-2.0
// The socket on which a service is reached: one of our own, or one that systemd made (sd_listen_fds(3)).
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::rpc {

class Listener {
 public:
  // Mode 0600: who else may connect is for the administrator to say, with chmod(1) and chown(1). A socket that nobody
  // listens on is replaced; one in use, or another file, is not.
  static Result<std::optional<Listener>> bind(const std::string& path);
  // The descriptor 3 of socket activation; nullopt: there is none.
  static Result<std::optional<Listener>> inherited();
  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&& other) noexcept;
  ~Listener() { close(); }

  int socket() const { return socket_.get(); }
  // No more connections; the file goes, if it is ours and still the same.
  void close();
  // Closes our copy only: the file is the parent's.
  void forget();

 private:
  explicit Listener(Fd socket) : socket_(std::move(socket)) {}
  Fd socket_;
  std::string path_;  // empty: not ours
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace stasis::rpc
