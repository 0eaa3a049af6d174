// SPDX-License-Identifier: Apache-2.0
// Names of unix sockets on restore: in the container's file system, in no file system that anybody else sees (names
// that are deleted, or belonged to a socket that is closed), or abstract.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::files {

// sockaddr_un of a name: a path without its NUL, or a NUL and more. A name that is too long is cut: check it before.
class UnixAddress {
 public:
  explicit UnixAddress(const std::string& name);
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&address_); }
  socklen_t size() const { return size_; }

 private:
  sockaddr_un address_{};
  socklen_t size_;
};

// Where a bound socket is reached: an address, and the directory to be in.
struct UnixPlace {
  Fd directory;  // none: any
  std::string address;
  bool unlink_last = false;
};

// Is bind(2) to this path possible now? A socket that nobody has open any more is to be replaced.
Result<void> check_unix_path(const std::string& name, const std::string& directory);
// `directory`: of a relative name.
Result<UnixPlace> bind_unix(int socket, const std::string& name, const std::string& directory);
// The same name, in a file system of its own.
Result<UnixPlace> bind_unix_apart(int socket, const std::string& name);
Result<void> connect_unix(int socket, const UnixPlace& place);
// The file goes; who has found it stays connected.
void unlink_unix(const UnixPlace& place);

}  // namespace stasis::files
