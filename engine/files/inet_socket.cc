// SPDX-License-Identifier: Apache-2.0
// tcp(7) and udp(7) sockets, IPv4 and IPv6: listening, not connected yet, and UDP with or without a peer. Of TCP
// connections it has the address and the options; the rest is in tcp_stream.cc.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/files/datagrams.h"
#include "engine/files/inet_address.h"
#include "engine/files/inet_options.h"
#include "engine/files/kind.h"
#include "engine/files/tcp.h"

namespace stasis::files {
namespace {

Result<Address> address_of(const Candidate& c) {
  Address address;
  if (::getsockname(c.copy.get(), address.get(), &address.size) < 0) return fail_sys("getsockname", c.name());
  return address;
}

// A raw socket may have any protocol; a datagram socket of ICMP is one for pings.
bool is_known(uint32_t type, uint32_t protocol) {
  if (type == SOCK_STREAM) return protocol == IPPROTO_TCP;
  if (type == SOCK_RAW) return protocol <= IPPROTO_RAW;
  return type == SOCK_DGRAM && (protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE || protocol == IPPROTO_ICMP ||
                                protocol == IPPROTO_ICMPV6);
}

bool matches(const Candidate& c) {
  if (!S_ISSOCK(c.st.st_mode) || c.fd < 0) return false;
  const auto domain = get_int(c.copy.get(), SOL_SOCKET, SO_DOMAIN);
  const auto protocol = get_int(c.copy.get(), SOL_SOCKET, SO_PROTOCOL);
  const auto type = get_int(c.copy.get(), SOL_SOCKET, SO_TYPE);
  return (domain == AF_INET || domain == AF_INET6) && protocol && type &&
         is_known(static_cast<uint32_t>(*type), static_cast<uint32_t>(*protocol));
}

std::unexpected<Error> refuse(const Candidate& c, std::string what) {
  return fail(Error(Code::kUnsupportedFile, cat(c.name(), " is a ", what, ", which cannot be checkpointed yet"))
                  .about(c.name()));
}

Result<tcp_info> info_of(const Candidate& c) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (::getsockopt(c.copy.get(), IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
    return fail_sys("getsockopt(TCP_INFO)", c.name());
  return info;
}

short events_of(int socket) {
  pollfd item{socket, POLLIN | POLLRDHUP, 0};
  return ::poll(&item, 1, 0) < 0 ? short{0} : item.revents;
}

// Connections are read by TCP_REPAIR, which this has to be allowed; tried on a socket of our own.
Result<void> check_repair(const Candidate& c, const DumpEnv& env, std::string_view at) {
  const Fd own(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = TCP_REPAIR_ON;
  if (!own || ::setsockopt(own.get(), IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
    return fail(Error(Code::kPermission, cat(c.name(), ": the TCP connection at ", at,
                                             " cannot be read without CAP_NET_ADMIN (TCP_REPAIR)"))
                    .about(c.name()));
  if (env.users && TRY(env.proc.ns(env.root_pid, "net")).inode == TRY(env.proc.ns(::getpid(), "net")).inode)
    return refuse(c, cat("TCP connection at ", at, " of the host's network in a user namespace that does not own it"));
  return {};
}

Result<void> check_connection(const Candidate& c, const DumpEnv& env, uint32_t state, const std::string& at) {
  const int socket = c.copy.get();
  pollfd item{socket, POLLPRI, 0};
  if (::poll(&item, 1, 0) == 1) {
    if (item.revents & POLLERR) return refuse(c, cat("TCP connection at ", at, " with an error that nobody has read"));
    if (item.revents & POLLPRI) return refuse(c, cat("TCP connection at ", at, " with urgent data"));
  }
  if (get_int(socket, SOL_SOCKET, SO_LOCK_FILTER).value_or(0))
    return refuse(c, cat("TCP connection at ", at, " whose packet filter is locked"));
  if (get_int(socket, SOL_SOCKET, SO_PEEK_OFF).value_or(-1) >= 0)
    return refuse(c, cat("TCP connection at ", at, " that is read with an offset (SO_PEEK_OFF)"));
  char device[IFNAMSIZ] = {};
  socklen_t size = sizeof(device);
  const bool half = state != kEstablished && state != kClose && state != kFinWait1 && state != kSynSent;
  if (half && ::getsockopt(socket, SOL_SOCKET, SO_BINDTODEVICE, device, &size) == 0 && device[0] &&
      std::string_view(device) != "lo")
    return refuse(c, cat("half closed TCP connection at ", at, " that belongs to the network device ", device));
  return check_repair(c, env, at);
}

Result<void> check_connecting(const Candidate& c, const DumpEnv& env, const tcp_info& info, const std::string& at) {
  if (info.tcpi_data_segs_out > 0 || get_int(c.copy.get(), IPPROTO_TCP, TCP_FASTOPEN_CONNECT).value_or(0))
    return refuse(c, cat("TCP connection at ", at, " that sends data before it is made (TCP Fast Open)"));
  return check_connection(c, env, kSynSent, at);
}

Result<void> check_tcp(const Candidate& c, const DumpEnv& env) {
  const auto info = TRY(info_of(c));
  const std::string at = TRY(address_of(c)).text();
  if (info.tcpi_state == kListen) {
    // For a listening socket the kernel tells the length of the accept queue here. As long as the tasks run they may
    // accept (engine/arrivals.h).
    if (info.tcpi_unacked > 0 && env.connections && !env.options.tcp_skip_in_flight)
      return refuse(c, cat("listening TCP socket at ", at, " with ", info.tcpi_unacked,
                           " connections not yet accepted (--skip-in-flight drops them)"));
    return {};
  }
  if (is_connection(info.tcpi_state)) return check_connection(c, env, info.tcpi_state, at);
  if (info.tcpi_state == kSynSent) return check_connecting(c, env, info, at);
  if (info.tcpi_state != kClose) {
    const auto* state = info.tcpi_state < std::size(kTcpStates) ? kTcpStates[info.tcpi_state] : "?";
    return refuse(c, cat("TCP connection at ", at, " in state ", state));
  }
  if (events_of(c.copy.get()) & (POLLRDHUP | POLLERR)) return check_connection(c, env, kClose, at);
  return {};
}

// A peer that getpeername(2) does not tell, since it was given without a port: of raw sockets and those for pings
// /proc/PID/net has it, as words in hex.
std::vector<uint32_t> peer_without_port(const Candidate& c, const DumpEnv& env) {
  std::vector<uint32_t> words;
  for (const char* table : {"net/raw", "net/raw6", "net/icmp", "net/icmp6"}) {
    const auto text = env.proc.text(c.pid, table);
    if (!text) continue;
    for (const auto line : lines(*text)) {
      const auto f = fields(line);
      if (f.size() < 10 || f[9] != cat(c.st.st_ino) || f[3] != "01") continue;
      for (size_t at = 0, end = std::min(f[2].find(':'), f[2].size()); at + 8 <= end; at += 8)
        words.push_back(parse_int<uint32_t>(f[2].substr(at, 8), 16).value_or(0));
      return words;
    }
  }
  return words;
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  TRY(owner_of(c, env));
  TRY(check_socket_namespace(c, env));
  const int type = get_int(c.copy.get(), SOL_SOCKET, SO_TYPE).value_or(0);
  if (type == SOCK_STREAM) TRY(check_tcp(c, env));
  return check_inet_options(c, env, type);
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  const int socket = c.copy.get();
  auto& isk = *entry.mutable_isk();
  entry.set_type(pb::INETSK);
  isk.set_id(entry.id());
  isk.set_ino(static_cast<uint32_t>(c.st.st_ino));
  isk.set_family(static_cast<uint32_t>(get_int(socket, SOL_SOCKET, SO_DOMAIN).value_or(0)));
  isk.set_type(static_cast<uint32_t>(get_int(socket, SOL_SOCKET, SO_TYPE).value_or(0)));
  isk.set_proto(static_cast<uint32_t>(get_int(socket, SOL_SOCKET, SO_PROTOCOL).value_or(0)));
  isk.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  isk.set_ns_id(env.net_ns_id);
  set_no_owner(isk.mutable_fown());
  auto local = TRY(address_of(c));
  isk.set_src_port(local.port());
  local.put_words(isk.mutable_src_addr());
  Address peer;
  const bool connected = ::getpeername(socket, peer.get(), &peer.size) == 0;
  // Of a connection that is over getpeername(2) tells nothing.
  peer.size = local.storage.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);  // not more than it is
  if (!connected && ::getsockopt(socket, SOL_SOCKET, SO_PEERNAME, peer.get(), &peer.size) < 0) peer = {};
  if (!connected) peer.storage.ss_family = local.storage.ss_family;
  isk.set_dst_port(peer.port());
  peer.put_words(isk.mutable_dst_addr());
  isk.set_state(connected ? kEstablished : kClose);
  isk.set_backlog(0);
  if (isk.type() == SOCK_STREAM) {
    const auto info = TRY(info_of(c));
    isk.set_state(info.tcpi_state);
    if (info.tcpi_state == kListen) isk.set_backlog(info.tcpi_sacked);  // what listen(2) was given
    const bool ended = info.tcpi_state == kClose && (events_of(socket) & POLLRDHUP);
    if (ended) isk.set_shutdown(pb::BOTH);
    if (ended || has_peer(info.tcpi_state)) TRY(dump_stream(c, info.tcpi_state, isk, env, out));
  } else if (const short events = events_of(socket); events & POLLRDHUP) {
    isk.set_shutdown(events & POLLHUP ? pb::BOTH : pb::READ);
  }
  if (!connected && isk.type() != SOCK_STREAM)
    if (const auto words = peer_without_port(c, env); words.size() == static_cast<size_t>(isk.src_addr_size())) {
      isk.mutable_dst_addr()->Assign(words.begin(), words.end());
      isk.set_state(kEstablished);
    }
  if (local.storage.ss_family == AF_INET6 && local.v6().sin6_scope_id != 0) {
    ifreq request{};
    request.ifr_ifindex = static_cast<int>(local.v6().sin6_scope_id);
    if (::ioctl(socket, SIOCGIFNAME, &request) < 0) return fail_sys("ioctl(SIOCGIFNAME)", c.name());
    isk.set_ifname(request.ifr_name);
  }
  return dump_inet_options(c, env, isk, out);
}

std::unexpected<Error> corrupt(const pb::inet_sk_entry& isk, std::string_view what) {
  return fail(Error(Code::kImageCorrupt, cat("files.img: socket ", isk.id(), ": ", what)).about("files.img"));
}

Result<void> check_entry(const pb::inet_sk_entry& isk) {
  const bool tcp = isk.type() == SOCK_STREAM && isk.proto() == IPPROTO_TCP;
  if ((isk.family() != AF_INET && isk.family() != AF_INET6) || !is_known(isk.type(), isk.proto()))
    return fail(Error(Code::kUnsupportedFile, cat("file ", isk.id(), " of the images is a socket of family ",
                                                  isk.family(), ", type ", isk.type(), ", protocol ", isk.proto()))
                    .about(cat("file ", isk.id())));
  const int words = isk.family() == AF_INET ? 1 : 4;
  if (isk.src_addr_size() != words || isk.src_port() > 0xffff || isk.dst_port() > 0xffff ||
      (isk.dst_addr_size() != words && isk.dst_addr_size() != 0) || isk.ifname().size() >= IFNAMSIZ)
    return corrupt(isk, "address");
  if (tcp && has_peer(isk.state()))
    return isk.dst_addr_size() == words && isk.src_port() && isk.dst_port() ? Result<void>() : corrupt(isk, "no peer");
  const bool at_rest = isk.state() == kClose || (tcp ? isk.state() == kListen : isk.state() == kEstablished);
  if (!at_rest)
    return fail(Error(Code::kUnsupportedFile, cat("file ", isk.id(), " of the images is a TCP connection in state ",
                                                  isk.state() < std::size(kTcpStates) ? kTcpStates[isk.state()] : "?",
                                                  ", which cannot be restored yet"))
                    .about(cat("file ", isk.id())));
  if (isk.state() == kEstablished && isk.dst_addr_size() != words) return corrupt(isk, "no peer");
  return {};
}

Result<Address> address_from(const pb::inet_sk_entry& isk, int socket,
                             const google::protobuf::RepeatedField<uint32_t>& words, uint32_t port) {
  Address out;
  uint32_t raw[4] = {};
  for (int i = 0; i < words.size() && i < 4; ++i) raw[i] = words[i];
  out.storage.ss_family = static_cast<sa_family_t>(isk.family());
  if (isk.family() == AF_INET) {
    out.size = sizeof(sockaddr_in);
    out.v4().sin_port = htons(static_cast<uint16_t>(port));
    std::memcpy(&out.v4().sin_addr, raw, sizeof(out.v4().sin_addr));
    return out;
  }
  out.size = sizeof(sockaddr_in6);
  out.v6().sin6_port = htons(static_cast<uint16_t>(port));
  std::memcpy(&out.v6().sin6_addr, raw, sizeof(out.v6().sin6_addr));
  if (!isk.ifname().empty() && IN6_IS_ADDR_LINKLOCAL(&out.v6().sin6_addr)) {
    ifreq request{};
    std::memcpy(request.ifr_name, isk.ifname().data(), isk.ifname().size());
    if (::ioctl(socket, SIOCGIFINDEX, &request) < 0)
      return fail_sys(Code::kRestoreFailed, "find network device", isk.ifname());
    out.v6().sin6_scope_id = static_cast<uint32_t>(request.ifr_ifindex);
  }
  return out;
}

bool any_address(Address& address) {
  if (address.storage.ss_family == AF_INET) return address.v4().sin_addr.s_addr == 0;
  return IN6_IS_ADDR_UNSPECIFIED(&address.v6().sin6_addr);
}

std::unexpected<Error> cannot_bind(const pb::inet_sk_entry& isk, Address& address, std::string_view call) {
  const int error = errno;
  const std::string where = cat(isk.type() == SOCK_STREAM ? "TCP " : "UDP ", address.text());
  std::string_view why = "";
  if (error == EADDRINUSE) why = "; another socket has this address: free it first";
  if (error == EADDRNOTAVAIL) why = "; no network device here has this address: give it to one first";
  errno = error;
  const Error base = Error::sys(Code::kRestoreFailed, call, where);
  return fail(Error(base.code(), cat(base.message(), why)).about(where).with_errno(error));
}

Result<void> place_connection(int socket, const pb::inet_sk_entry& isk, const RestoreEnv& env) {
  auto local = TRY(address_from(isk, socket, isk.src_addr(), isk.src_port()));
  const bool close = env.options.tcp_close;
  if (isk.state() == kSynSent && !close)
    return restore_connecting(socket, isk, local, TRY(load_stream(*env.images, isk)));
  if (!is_connection(isk.state()) || close) {
    if (close || isk.dst_port() == 0 || isk.dst_addr_size() == 0) return restore_closed(socket, isk, local, close);
    auto peer = TRY(address_from(isk, socket, isk.dst_addr(), isk.dst_port()));
    const bool unread = env.images->exists(stream_image(isk));
    return restore_ended(socket, isk, local, peer, unread ? TRY(load_stream(*env.images, isk)).in : std::string());
  }
  auto peer = TRY(address_from(isk, socket, isk.dst_addr(), isk.dst_port()));
  return restore_stream(socket, isk, local, peer, TRY(load_stream(*env.images, isk)));
}

Result<void> place(int socket, const pb::inet_sk_entry& isk) {
  const bool tcp = isk.type() == SOCK_STREAM;
  auto local = TRY(address_from(isk, socket, isk.src_addr(), isk.src_port()));
  // What is left of connections of the socket's former life must not be in its way. For UDP the
  // option would let it in beside a stranger.
  TRY(set_int(socket, SOL_SOCKET, SO_REUSEADDR, tcp || isk.opts().reuseaddr(), "SO_REUSEADDR"));
  // bind(2) to one IPv6 address sets IPV6_V6ONLY: where it is not set, connect(2) has chosen the address.
  const bool connected = !tcp && isk.state() == kEstablished;
  const bool chosen = connected && isk.family() == AF_INET6 && !isk.v6only() && !any_address(local) &&
                      !IN6_IS_ADDR_V4MAPPED(&local.v6().sin6_addr);
  Address to_bind = local;
  if (chosen) to_bind.v6().sin6_addr = in6addr_any;
  if ((isk.src_port() != 0 || !any_address(local)) && ::bind(socket, to_bind.get(), to_bind.size) < 0)
    return cannot_bind(isk, to_bind, "bind");
  // listen(2) looks once more for others at the address: the connections of this one are there already.
  if (isk.state() == kListen && ::listen(socket, static_cast<int>(isk.backlog())) < 0)
    return cannot_bind(isk, local, "listen");
  TRY(set_int(socket, SOL_SOCKET, SO_REUSEADDR, isk.opts().reuseaddr(), "SO_REUSEADDR"));
  if (connected) {
    auto peer = TRY(address_from(isk, socket, isk.dst_addr(), isk.dst_port()));
    if (::connect(socket, peer.get(), peer.size) < 0) return cannot_bind(isk, peer, "connect");
    Address now;
    if (::getsockname(socket, now.get(), &now.size) < 0) return fail_sys("getsockname", local.text());
    if (chosen && now.text() != local.text())
      return fail(Error(Code::kRestoreFailed, cat("UDP socket ", local.text(), " would send from ", now.text(), " now"))
                      .about(cat("UDP ", local.text())));
  }
  if (isk.has_shutdown() && isk.shutdown() != pb::NONE)
    // ENOTCONN says that there is no peer; the direction is shut down all the same.
    (void)::shutdown(socket, isk.shutdown() == pb::READ ? SHUT_RD : isk.shutdown() == pb::WRITE ? SHUT_WR : SHUT_RDWR);
  return {};
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  if (!entry.has_isk()) return fail(Code::kImageCorrupt, cat("files.img: file ", entry.id(), " is no socket"));
  const auto& isk = entry.isk();
  TRY(check_entry(isk));
  Fd fd(::socket(static_cast<int>(isk.family()), static_cast<int>(isk.type()) | SOCK_CLOEXEC,
                 static_cast<int>(isk.proto())));
  if (!fd) return fail_sys(Code::kRestoreFailed, "socket", cat("file ", entry.id()));
  const auto* extra = find_extra(env, entry.id());
  if (extra && env.packets)
    if (const auto packets = env.packets->find(entry.id()); packets != env.packets->end())
      TRY(restore_datagrams(fd.get(), isk, *extra, packets->second));
  TRY(restore_inet_options(fd.get(), isk, extra));
  if (extra) TRY(restore_groups(fd.get(), *extra));
  const bool connection = isk.type() == SOCK_STREAM && (has_peer(isk.state()) || isk.shutdown() == pb::BOTH);
  if (connection)
    TRY(place_connection(fd.get(), isk, env));
  else
    TRY(place(fd.get(), isk));
  if (extra && extra->has_uid() && ::fchown(fd.get(), extra->uid(), static_cast<gid_t>(-1)) < 0)
    return fail_sys(Code::kRestoreFailed, "fchown", cat("file ", entry.id()));
  TRY(set_flags(fd.get(), isk.flags(), cat("file ", entry.id())));
  return fd;
}

}  // namespace

Result<void> check_socket_namespace(const Candidate& c, const DumpEnv& env) {
  const Fd ns(::ioctl(c.copy.get(), SIOCGSKNS));
  if (!ns && errno == EPERM)
    return fail(Error(Code::kPermission, cat(c.name(), ": without CAP_NET_ADMIN nobody can see which network this ",
                                             "socket belongs to, nor what is on its way in a TCP connection"))
                    .about(c.name()));
  if (!ns) return fail_sys("ioctl(SIOCGSKNS)", c.name());
  struct stat st {};
  if (::fstat(ns.get(), &st) < 0) return fail_sys("fstat", c.name());
  const auto own = TRY(env.proc.ns(env.root_pid, "net"));
  if (own.inode == st.st_ino && own.dev == st.st_dev) return {};
  return refuse(c, "socket of another network namespace");
}

Result<Address> peer_from(const pb::inet_sk_entry& isk, int socket) {
  return address_from(isk, socket, isk.dst_addr(), isk.dst_port());
}

const pb::socket_extra* find_extra(const RestoreEnv& env, uint32_t id) {
  if (!env.manifest) return nullptr;
  for (const auto& extra : env.manifest->socket_extras())
    if (extra.file_id() == id) return &extra;
  return nullptr;
}

std::string describe_socket(int socket) {
  constexpr std::pair<int, std::string_view> kFamilies[] = {
      {AF_VSOCK, "vsock"}, {44, "XDP"}, {AF_ALG, "AF_ALG"}, {AF_PACKET, "packet"}, {AF_BLUETOOTH, "Bluetooth"}};
  constexpr std::pair<int, std::string_view> kProtocols[] = {{262, "MPTCP"}, {IPPROTO_SCTP, "SCTP"}};
  for (const auto& [family, name] : kFamilies)
    if (get_int(socket, SOL_SOCKET, SO_DOMAIN) == family) return cat(name, " socket");
  for (const auto& [protocol, name] : kProtocols)
    if (get_int(socket, SOL_SOCKET, SO_PROTOCOL) == protocol) return cat(name, " socket");
  return "socket";
}

const FileKind kInetSocket = {"socket of the internet protocols", pb::INETSK, matches, check, dump, restore};

}  // namespace stasis::files
