// SPDX-License-Identifier: Apache-2.0
// Packets of connections whose sockets do not exist for a while: in a network that goes on without the container they
// are dropped by a table of nftables, so that the kernel does not reset what it does not know. All of it is about the
// network namespace the caller is in.
#pragma once

#include <set>

#include "engine/files/tcp.h"

namespace stasis::files {

std::string lock_table_name(uint64_t number);
bool is_lock_table_name(std::string_view name);
// False: nothing can arrive for them, since both their ends are among them. What nobody restores expires.
Result<bool> add_lock_table(const std::string& name, const LockedSockets& sockets);
// Drops what asks for a new connection to one of the ports.
Result<void> add_arrival_table(const std::string& name, const std::set<uint16_t>& ports);
// False: there is none of this name.
Result<bool> remove_lock_table(const std::string& name);
Result<std::vector<std::string>> lock_tables();
// All devices but the loopback: for a network that is about to end.
Result<void> take_links_down();

}  // namespace stasis::files
