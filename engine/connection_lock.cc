// SPDX-License-Identifier: Apache-2.0
#include "engine/connection_lock.h"

#include <sched.h>
#include <sys/random.h>

#include "engine/files/net_lock.h"
#include "engine/namespaces/namespaces.h"

namespace stasis {

Result<ConnectionLock> ConnectionLock::take(const procfs::Procfs& proc, const tasks::FrozenTree& tree, bool own_net) {
  ConnectionLock lock;
  lock.sockets_ = TRY(files::find_connections(proc, tree));
  if (lock.sockets_.empty()) return lock;
  lock.own_net_ = own_net;
  lock.root_pidfd_ = tree.processes().front().pidfd.get();
  uint64_t number = 0;
  if (::getrandom(&number, sizeof(number), 0) < 0) return fail_sys("getrandom");
  lock.table_ = files::lock_table_name(number);
  // Before the first of them is locked; it takes back what may have been done.
  lock.janitor_.emplace(TRY(Janitor::start([&] {
    for (auto& [inode, socket] : lock.sockets_) socket.locked = true;
    lock.added_ = !own_net;
    lock.release();
  })));
  TRY(files::lock_connections(lock.sockets_));
  return lock;
}

ConnectionLock::~ConnectionLock() { release(); }

void ConnectionLock::release() {
  files::unlock_connections(sockets_);
  for (auto& [inode, socket] : sockets_) socket.locked = false;
  if (added_) remove_table();
}

void ConnectionLock::remove_table() {
  added_ = false;
  if (const auto inside = namespaces::Inside::enter(root_pidfd_, CLONE_NEWNET); inside)
    (void)files::remove_lock_table(table_);
}

Result<void> ConnectionLock::outlive(image::Writer& images) {
  if (sockets_.empty() || own_net_) return {};
  const auto inside = TRY(namespaces::Inside::enter(root_pidfd_, CLONE_NEWNET));
  added_ = TRY(files::add_lock_table(table_, sockets_));
  if (added_) images.set_network_lock(table_);
  return {};
}

void ConnectionLock::let_die() {
  if (sockets_.empty()) return;
  added_ = false;
  files::end_in_silence(sockets_);
  for (auto& [inode, socket] : sockets_) socket.locked = false;
  if (!own_net_) return;
  // The kernel takes a network apart piece by piece, and must not be asked about connections meanwhile.
  const auto inside = namespaces::Inside::enter(root_pidfd_, CLONE_NEWNET);
  if (auto down = inside ? files::take_links_down() : Result<void>(fail(inside.error())); !down)
    log::warning("network lock: ", down.error().message(), ", ignoring");
}

}  // namespace stasis
