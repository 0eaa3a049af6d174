// SPDX-License-Identifier: Apache-2.0
// Connections that nobody has accepted yet cannot be made again by TCP_REPAIR. So no new ones are let in, and the tasks
// run on for moments until they have accepted what there is.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/janitor.h"
#include "engine/procfs/procfs.h"
#include "engine/tasks/frozen_tree.h"

namespace stasis {

class Arrivals {
 public:
  // A server under load accepts within a scheduler's turn, and one round is mostly enough. What stands unaccepted for
  // all of them is not waited for: new clients send their first packet again after a second, and then each two.
  static constexpr int kRounds = 8;
  static constexpr int kRoundMs = 250;
  // A peer that is there answers in that time; one that is not need not be waited for.
  static constexpr int kNetworkRounds = 2;

  // For the listening sockets of a stopped tree: from here on until it goes nobody can ask for a connection.
  static Result<Arrivals> hold_off(const procfs::Procfs& proc, const tasks::FrozenTree& tree);
  Arrivals(Arrivals&&) = default;
  Arrivals& operator=(Arrivals&&) = delete;
  ~Arrivals();

  // Somebody waits to be accepted, or is about to, or is still to get the end of an answer.
  bool pending(const procfs::Procfs& proc, int round) const;
  // While the tasks run: until nobody waits any more, for a round at most.
  void await(const procfs::Procfs& proc, int round) const;
  // Is each listening socket of the tree, which has run meanwhile, one of these?
  Result<bool> knows(const procfs::Procfs& proc, const tasks::FrozenTree& tree) const;

 private:
  Arrivals() = default;
  bool queued() const;
  std::vector<Fd> sockets_;
  std::set<ino_t> inodes_;
  std::set<uint16_t> ports_;
  pid_t root_ = 0;
  Fd network_;
  std::string table_;  // of nftables; empty: there is none
  std::optional<Janitor> janitor_;
};

// Stops the tree anew, after rounds in which it has run, until no connection waits to be accepted. What waits still is
// left to be refused by name. `ran_on`: it is another tree now.
Result<std::optional<Arrivals>> let_accept(const procfs::Procfs& proc, const Options& options,
                                           std::optional<tasks::FrozenTree>& tree, bool& ran_on);

}  // namespace stasis
