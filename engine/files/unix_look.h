// SPDX-License-Identifier: Apache-2.0
// What sock_diag(7) tells of all unix sockets of a network namespace, asked for once, and which of them the tasks of
// the container have open.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/files/kind.h"

namespace stasis::files {

// One socket; linux/unix_diag.h.
struct UnixDiag {
  uint32_t inode = 0;
  uint32_t type = 0, state = 0, shutdown = 0;
  std::optional<uint32_t> peer;   // inode; 0: it has one, which is closed or not accepted yet
  std::vector<uint32_t> waiting;  // of a listening socket: the other ends of connections not accepted yet, oldest first
  uint32_t in_queue = 0;          // bytes to be read; listening: connections not accepted yet
  uint32_t out_queue = 0;         // listening: the limit of those
  uint32_t file_device = 0, file_inode = 0;  // of its path: as the kernel has it inside, the low 32 bits
  std::string name;                          // a path without its NUL, or a NUL and more
};

class UnixLook {
 public:
  // A connection that `listener` has not accepted yet, its place in the queue.
  struct Wait {
    uint32_t listener = 0, place = 0;
  };

  static Result<std::shared_ptr<const UnixLook>> take(const DumpEnv& env);

  const UnixDiag* find(uint32_t inode) const;
  const Wait* waits(uint32_t inode) const;
  bool is_inside(uint32_t inode) const { return inside_.contains(inode); }
  // Pids of tasks that have ended: the engine's number -> the container's.
  std::map<pid_t, pid_t>& ended() const { return ended_; }
  // Some sockets are on their way through others: not every socket of the container is known.
  bool in_flight() const { return in_flight_; }

 private:
  Result<void> read_namespace(int ns);
  Result<void> find_inside(const DumpEnv& env);
  std::map<uint32_t, UnixDiag> sockets_;
  std::map<uint32_t, Wait> waits_;  // by the inode of the end that connected
  std::set<uint32_t> inside_;
  mutable std::map<pid_t, pid_t> ended_;
  bool in_flight_ = false;
};

// Of this env, taken when it is first needed.
Result<const UnixLook*> unix_look(const DumpEnv& env);

// "socket:[N]"
std::optional<uint32_t> socket_inode(std::string_view link);
// The name for people: a path, or "@" and an abstract name.
std::string show_unix_name(std::string_view name);

}  // namespace stasis::files
