// SPDX-License-Identifier: Apache-2.0
// TCP connections: what of them is read and made by TCP_REPAIR (tcp_stream.cc), and how packets are kept away from them
// meanwhile (tcp_lock.cc).
#pragma once

#include <linux/filter.h>

#include <map>
#include <string>
#include <vector>

#include "engine/files/inet_address.h"
#include "engine/files/kind.h"
#include "engine/tasks/frozen_tree.h"
#include "proto/sockets.pb.h"

namespace stasis::files {

// include/net/tcp_states.h, also used for UDP.
enum TcpState : uint32_t {
  kEstablished = 1,
  kSynSent,
  kSynRecv,
  kFinWait1,
  kFinWait2,
  kTimeWait,
  kClose,
  kCloseWait,
  kLastAck,
  kListen,
  kClosing
};
constexpr const char* kTcpStates[] = {"",          "ESTABLISHED", "SYN_SENT",   "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2",
                                      "TIME_WAIT", "CLOSE",       "CLOSE_WAIT", "LAST_ACK", "LISTEN",    "CLOSING"};
constexpr bool is_connection(uint32_t state) {
  constexpr uint32_t kAll =
      1u << kEstablished | 1u << kFinWait1 | 1u << kFinWait2 | 1u << kCloseWait | 1u << kLastAck | 1u << kClosing;
  return state < 32 && (kAll >> state & 1);
}
// Those and what is to become one.
constexpr bool has_peer(uint32_t state) { return is_connection(state) || state == kSynSent; }
// Packets of ours that pass every lock carry it.
constexpr uint32_t kTcpMark = 0x57a51503;

Result<uint32_t> tcp_state(int socket, std::string_view name);

// A connection that no packet reaches.
struct LockedSocket {
  Fd copy;
  bool reuse = false, locked = false;
  std::vector<sock_filter> filter;  // its own
};
using LockedSockets = std::map<ino_t, LockedSocket>;
// Those of a stopped tree.
Result<LockedSockets> find_connections(const procfs::Procfs& proc, const tasks::FrozenTree& tree);
Result<void> lock_connections(LockedSockets& sockets);
// Just before the tasks are killed.
void end_in_silence(const LockedSockets& sockets);
void unlock_connections(const LockedSockets& sockets);

// The socket's classic packet filter; empty: none.
Result<std::vector<sock_filter>> get_filter(int socket);
Result<void> set_filter(int socket, const std::vector<sock_filter>& filter);
// Drops whatever is not ours.
Result<void> set_guard(int socket);
void put_filter(const std::vector<sock_filter>& filter, pb::sk_opts_entry& opts);
std::vector<sock_filter> filter_from(const pb::sk_opts_entry& opts);

// Writes tcp-stream-INO.img of a locked connection, or of one that has ended with bytes not read.
Result<void> dump_stream(const Candidate& c, uint32_t state, const pb::inet_sk_entry& isk, const DumpEnv& env,
                         DumpOutput& out);

struct TcpStream {
  pb::tcp_stream_entry entry;
  std::string in, out;
};
std::string stream_image(const pb::inet_sk_entry& isk);
Result<Address> peer_from(const pb::inet_sk_entry& isk, int socket);
Result<TcpStream> load_stream(const image::Reader& images, const pb::inet_sk_entry& isk);
// Of a new socket that has its options: the connection, in repair mode and locked.
Result<void> restore_stream(int socket, const pb::inet_sk_entry& isk, Address& local, Address& peer,
                            const TcpStream& stream);
// A connection that is over, with what was not read of it.
Result<void> restore_ended(int socket, const pb::inet_sk_entry& isk, Address& local, Address& peer,
                           const std::string& in);
// One that waits for the first answer, up to connect(2).
Result<void> restore_connecting(int socket, const pb::inet_sk_entry& isk, Address& local, const TcpStream& stream);
// One that shall be over, or never was.
Result<void> restore_closed(int socket, const pb::inet_sk_entry& isk, Address& local, bool address_may_be_gone);

// A TCP packet from `from` to `to`, both of them ends of a connection, that arrives as if from the network.
struct Segment {
  uint32_t seq = 0, ack = 0;
  uint8_t flags = 0;  // TH_*
  uint16_t window = 0;
};
Result<void> inject(Address& from, Address& to, const Segment& packet);

}  // namespace stasis::files
