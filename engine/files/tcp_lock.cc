// SPDX-License-Identifier: Apache-2.0
// A connection is read while nothing changes it: a packet filter of the socket's own drops what arrives (the peer sends
// it again). TCP_REPAIR has it end without a word to the peer when its tasks are killed. Both are states of the socket,
// so they are taken back on every path; the engine's janitor has copies of the sockets for that.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "engine/files/collect.h"
#include "engine/files/inet_options.h"
#include "engine/files/tcp.h"

namespace stasis::files {

Result<uint32_t> tcp_state(int socket, std::string_view name) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) < 0) return fail_sys("getsockopt(TCP_INFO)", name);
  return uint32_t{info.tcpi_state};
}

Result<std::vector<sock_filter>> get_filter(int socket) {
  socklen_t count = 0;
  if (::getsockopt(socket, SOL_SOCKET, SO_GET_FILTER, nullptr, &count) < 0) return fail_sys("SO_GET_FILTER");
  std::vector<sock_filter> filter(count);
  if (count > 0 && ::getsockopt(socket, SOL_SOCKET, SO_GET_FILTER, filter.data(), &count) < 0)
    return fail_sys("SO_GET_FILTER");
  filter.resize(count);
  return filter;
}

Result<void> set_filter(int socket, const std::vector<sock_filter>& filter) {
  if (filter.empty()) {
    const int none = 0;
    if (::setsockopt(socket, SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof(none)) < 0 && errno != ENOENT)
      return fail_sys("SO_DETACH_FILTER");
    return {};
  }
  const sock_fprog program{static_cast<unsigned short>(filter.size()), const_cast<sock_filter*>(filter.data())};
  if (::setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0)
    return fail_sys("SO_ATTACH_FILTER");
  return {};
}

Result<void> set_guard(int socket) {
  constexpr auto kMarkOffset = static_cast<uint32_t>(SKF_AD_OFF + SKF_AD_MARK);
  return set_filter(socket, {{BPF_LD | BPF_W | BPF_ABS, 0, 0, kMarkOffset},
                             {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, kTcpMark},
                             {BPF_RET | BPF_K, 0, 0, 0xffffffff},
                             {BPF_RET | BPF_K, 0, 0, 0}});
}

void put_filter(const std::vector<sock_filter>& filter, pb::sk_opts_entry& opts) {
  for (const auto& f : filter)
    opts.add_so_filter(uint64_t{f.code} << 48 | uint64_t{f.jt} << 40 | uint64_t{f.jf} << 32 | f.k);
}

std::vector<sock_filter> filter_from(const pb::sk_opts_entry& opts) {
  std::vector<sock_filter> out;
  for (const uint64_t f : opts.so_filter())
    out.push_back({static_cast<uint16_t>(f >> 48), static_cast<uint8_t>(f >> 40), static_cast<uint8_t>(f >> 32),
                   static_cast<uint32_t>(f)});
  return out;
}

Result<LockedSockets> find_connections(const procfs::Procfs& proc, const tasks::FrozenTree& tree) {
  LockedSockets out;
  for (const auto& p : tree.processes()) {
    if (p.zombie) continue;
    for (auto& c : TRY(read_fds(proc, p.pid, p.pidfd.get()))) {
      if (!kInetSocket.matches(c) || out.contains(c.st.st_ino)) continue;
      if (get_int(c.copy.get(), SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP) continue;
      if (!has_peer(TRY(tcp_state(c.copy.get(), c.name())))) continue;
      auto& socket = out[c.st.st_ino];
      socket.filter = TRY(get_filter(c.copy.get()));
      socket.reuse = get_int(c.copy.get(), SOL_SOCKET, SO_REUSEADDR).value_or(0) != 0;
      socket.copy = std::move(c.copy);
    }
  }
  return out;
}

Result<void> lock_connections(LockedSockets& sockets) {
  for (auto& [inode, socket] : sockets) {
    TRY(set_guard(socket.copy.get()));
    socket.locked = true;
  }
  return {};
}

// Not earlier: if the engine dies a task may run before the janitor does, and must not meet a socket in repair mode.
void end_in_silence(const LockedSockets& sockets) {
  const int on = TCP_REPAIR_ON;
  for (const auto& [inode, socket] : sockets)
    if (::setsockopt(socket.copy.get(), IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
      log::warning("socket:[", inode, "]: its peer will hear of the end of the connection, ignoring");
}

void unlock_connections(const LockedSockets& sockets) {
  for (const auto& [inode, socket] : sockets) {
    if (!socket.locked) continue;
    // It forgets SO_REUSEADDR, and does not forget the queue.
    const int off = TCP_REPAIR_OFF_NO_WP, none = TCP_NO_QUEUE, reuse = socket.reuse;
    (void)::setsockopt(socket.copy.get(), IPPROTO_TCP, TCP_REPAIR_QUEUE, &none, sizeof(none));
    (void)::setsockopt(socket.copy.get(), IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off));
    (void)::setsockopt(socket.copy.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
    (void)set_filter(socket.copy.get(), socket.filter);
  }
}

}  // namespace stasis::files
