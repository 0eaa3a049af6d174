// SPDX-License-Identifier: Apache-2.0
#include "engine/files/inet_options.h"

#include <linux/filter.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/files/datagrams.h"
#include "engine/files/socket_options.h"
#include "engine/files/tcp.h"

namespace stasis::files {
namespace {

using Opts = pb::sk_opts_entry;

constexpr size_t kMaxValue = 32;  // struct icmp6_filter; TCP_CA_NAME_MAX is 16, everything else is an int

struct Option {
  int level, name;
};
// Kept in the manifest when they differ from those of a new socket. The numbers of
// include/uapi/linux, many of which glibc 2.36 does not name. No option of this list acts
// by being set: it is all that an image can ask for.
constexpr Option kOptions[] = {
    {SOL_SOCKET, 29 /*TIMESTAMP*/},
    {SOL_SOCKET, 35 /*TIMESTAMPNS*/},
    {SOL_SOCKET, 37 /*TIMESTAMPING*/},
    {SOL_SOCKET, 40 /*RXQ_OVFL*/},
    {SOL_SOCKET, 42 /*PEEK_OFF*/},
    {SOL_SOCKET, 44 /*LOCK_FILTER*/},
    {SOL_SOCKET, 45 /*SELECT_ERR_QUEUE*/},
    {SOL_SOCKET, 46 /*BUSY_POLL*/},
    {SOL_SOCKET, 47 /*MAX_PACING_RATE*/},
    {SOL_SOCKET, 60 /*ZEROCOPY*/},
    {SOL_SOCKET, 69 /*PREFER_BUSY_POLL*/},
    {SOL_SOCKET, 74 /*TXREHASH*/},
    {SOL_NETLINK, 3 /*PKTINFO*/},
    {SOL_NETLINK, 4 /*BROADCAST_ERROR*/},
    {SOL_NETLINK, 5 /*NO_ENOBUFS*/},
    {SOL_NETLINK, 8 /*LISTEN_ALL_NSID*/},
    {SOL_NETLINK, 10 /*CAP_ACK*/},
    {SOL_NETLINK, 11 /*EXT_ACK*/},
    {SOL_NETLINK, 12 /*GET_STRICT_CHK*/},
    {263 /*SOL_PACKET*/, 19 /*TX_HAS_OFF*/},
    {263 /*SOL_PACKET*/, 20 /*QDISC_BYPASS*/},
    {263 /*SOL_PACKET*/, 23 /*IGNORE_OUTGOING*/},
    {263 /*SOL_PACKET*/, 24 /*VNET_HDR_SZ*/},
    {255 /*SOL_RAW*/, 1 /*ICMP_FILTER*/},
    {IPPROTO_ICMPV6, 1 /*ICMPV6_FILTER*/},
    {IPPROTO_UDPLITE, 10 /*SEND_CSCOV*/},
    {IPPROTO_UDPLITE, 11 /*RECV_CSCOV*/},
    {IPPROTO_IP, 3 /*HDRINCL*/},
    {IPPROTO_IP, 22 /*NODEFRAG*/},
    {IPPROTO_IPV6, 7 /*CHECKSUM*/},
    {IPPROTO_IPV6, 36 /*HDRINCL*/},
    {IPPROTO_TCP, 1 /*NODELAY*/},
    {IPPROTO_TCP, 2 /*MAXSEG*/},
    {IPPROTO_TCP, 3 /*CORK*/},
    {IPPROTO_TCP, 7 /*SYNCNT*/},
    {IPPROTO_TCP, 8 /*LINGER2*/},
    {IPPROTO_TCP, 9 /*DEFER_ACCEPT*/},
    {IPPROTO_TCP, 10 /*WINDOW_CLAMP*/},
    {IPPROTO_TCP, 12 /*QUICKACK*/},
    {IPPROTO_TCP, 13 /*CONGESTION*/},
    {IPPROTO_TCP, 16 /*THIN_LINEAR_TIMEOUTS*/},
    {IPPROTO_TCP, 18 /*USER_TIMEOUT*/},
    {IPPROTO_TCP, 23 /*FASTOPEN*/},
    {IPPROTO_TCP, 25 /*NOTSENT_LOWAT*/},
    {IPPROTO_TCP, 27 /*SAVE_SYN*/},
    {IPPROTO_TCP, 30 /*FASTOPEN_CONNECT*/},
    {IPPROTO_TCP, 34 /*FASTOPEN_NO_COOKIE*/},
    {IPPROTO_TCP, 36 /*INQ*/},
    {IPPROTO_TCP, 37 /*TX_DELAY*/},
    {IPPROTO_UDP, 101 /*NO_CHECK6_TX*/},
    {IPPROTO_UDP, 102 /*NO_CHECK6_RX*/},
    {IPPROTO_UDP, 103 /*SEGMENT*/},
    {IPPROTO_UDP, 104 /*GRO*/},
    {IPPROTO_IP, 1 /*TOS*/},
    {IPPROTO_IP, 2 /*TTL*/},
    {IPPROTO_IP, 6 /*RECVOPTS*/},
    {IPPROTO_IP, 7 /*RETOPTS*/},
    {IPPROTO_IP, 8 /*PKTINFO*/},
    {IPPROTO_IP, 10 /*MTU_DISCOVER*/},
    {IPPROTO_IP, 11 /*RECVERR*/},
    {IPPROTO_IP, 12 /*RECVTTL*/},
    {IPPROTO_IP, 13 /*RECVTOS*/},
    {IPPROTO_IP, 18 /*PASSSEC*/},
    {IPPROTO_IP, 19 /*TRANSPARENT*/},
    {IPPROTO_IP, 20 /*RECVORIGDSTADDR*/},
    {IPPROTO_IP, 21 /*MINTTL*/},
    {IPPROTO_IP, 23 /*CHECKSUM*/},
    {IPPROTO_IP, 24 /*BIND_ADDRESS_NO_PORT*/},
    {IPPROTO_IP, 25 /*RECVFRAGSIZE*/},
    {IPPROTO_IP, 26 /*RECVERR_RFC4884*/},
    {IPPROTO_IP, 32 /*MULTICAST_IF*/},
    {IPPROTO_IP, 33 /*MULTICAST_TTL*/},
    {IPPROTO_IP, 34 /*MULTICAST_LOOP*/},
    {IPPROTO_IP, 49 /*MULTICAST_ALL*/},
    {IPPROTO_IP, 50 /*UNICAST_IF*/},
    {IPPROTO_IP, 51 /*LOCAL_PORT_RANGE*/},
    {IPPROTO_IPV6, 16 /*UNICAST_HOPS*/},
    {IPPROTO_IPV6, 17 /*MULTICAST_IF*/},
    {IPPROTO_IPV6, 18 /*MULTICAST_HOPS*/},
    {IPPROTO_IPV6, 19 /*MULTICAST_LOOP*/},
    {IPPROTO_IPV6, 23 /*MTU_DISCOVER*/},
    {IPPROTO_IPV6, 25 /*RECVERR*/},
    {IPPROTO_IPV6, 29 /*MULTICAST_ALL*/},
    {IPPROTO_IPV6, 33 /*FLOWINFO_SEND*/},
    {IPPROTO_IPV6, 49 /*RECVPKTINFO*/},
    {IPPROTO_IPV6, 51 /*RECVHOPLIMIT*/},
    {IPPROTO_IPV6, 53 /*RECVHOPOPTS*/},
    {IPPROTO_IPV6, 56 /*RECVRTHDR*/},
    {IPPROTO_IPV6, 58 /*RECVDSTOPTS*/},
    {IPPROTO_IPV6, 60 /*RECVPATHMTU*/},
    {IPPROTO_IPV6, 62 /*DONTFRAG*/},
    {IPPROTO_IPV6, 66 /*RECVTCLASS*/},
    {IPPROTO_IPV6, 67 /*TCLASS*/},
    {IPPROTO_IPV6, 70 /*AUTOFLOWLABEL*/},
    {IPPROTO_IPV6, 72 /*ADDR_PREFERENCES*/},
    {IPPROTO_IPV6, 73 /*MINHOPCOUNT*/},
    {IPPROTO_IPV6, 74 /*RECVORIGDSTADDR*/},
    {IPPROTO_IPV6, 75 /*TRANSPARENT*/},
    {IPPROTO_IPV6, 76 /*UNICAST_IF*/},
    {IPPROTO_IPV6, 77 /*RECVFRAGSIZE*/},
};

// What a connection has computed or agreed on, not what somebody has set.
bool is_of_the_connection(const Option& o) {
  if (o.level == IPPROTO_IP && o.name >= 32 && o.name <= 34) return true;    // of multicast, copied from a packet
  if (o.level == IPPROTO_IPV6 && o.name >= 17 && o.name <= 19) return true;  // the same
  return o.level == IPPROTO_TCP && (o.name == TCP_MAXSEG || o.name == TCP_WINDOW_CLAMP || o.name == TCP_QUICKACK ||
                                    o.name == 30 /*FASTOPEN_CONNECT*/);
}

std::optional<std::string> get_bytes(int socket, const Option& option) {
  char value[kMaxValue] = {};
  const bool text = option.level == IPPROTO_TCP && option.name == TCP_CONGESTION;
  const bool filter = option.level == IPPROTO_ICMPV6;
  socklen_t size = text ? 16 : filter ? sizeof(value) : sizeof(int);
  if (::getsockopt(socket, option.level, option.name, value, &size) < 0) return std::nullopt;
  if (!text && !filter && size != sizeof(int)) return std::nullopt;
  return text ? std::string(value) : std::string(value, size);
}

// Numbers of CRIU's message that are plain options.
struct Flag {
  int name;
  bool (Opts::*get)() const;
  void (Opts::*set)(bool);
};
const Flag kFlags[] = {
    {SO_REUSEPORT, &Opts::so_reuseport, &Opts::set_so_reuseport},
    {SO_BROADCAST, &Opts::so_broadcast, &Opts::set_so_broadcast},
    {SO_KEEPALIVE, &Opts::so_keepalive, &Opts::set_so_keepalive},
    {SO_DONTROUTE, &Opts::so_dontroute, &Opts::set_so_dontroute},
    {SO_NO_CHECK, &Opts::so_no_check, &Opts::set_so_no_check},
    {SO_PASSSEC, &Opts::so_passsec, &Opts::set_so_passsec},
};
struct Number {
  int level, name;
  uint32_t (Opts::*get)() const;
  void (Opts::*set)(uint32_t);
};
const Number kNumbers[] = {
    {SOL_SOCKET, SO_PRIORITY, &Opts::so_priority, &Opts::set_so_priority},
    {SOL_SOCKET, SO_RCVLOWAT, &Opts::so_rcvlowat, &Opts::set_so_rcvlowat},
    {SOL_SOCKET, SO_MARK, &Opts::so_mark, &Opts::set_so_mark},
    {SOL_SOCKET, SO_OOBINLINE, &Opts::so_oobinline, &Opts::set_so_oobinline},
    {IPPROTO_TCP, TCP_KEEPCNT, &Opts::tcp_keepcnt, &Opts::set_tcp_keepcnt},
    {IPPROTO_TCP, TCP_KEEPIDLE, &Opts::tcp_keepidle, &Opts::set_tcp_keepidle},
    {IPPROTO_TCP, TCP_KEEPINTVL, &Opts::tcp_keepintvl, &Opts::set_tcp_keepintvl},
};

std::unexpected<Error> refuse(const Candidate& c, std::string_view what) {
  return fail(Error(Code::kUnsupportedFile, cat(c.name(), " is a socket ", what, ", which cannot be checkpointed yet"))
                  .about(c.name()));
}

Result<void> restore_extra(int socket, const pb::socket_extra& extra) {
  for (const auto& o : extra.options()) {
    const bool known = std::any_of(std::begin(kOptions), std::end(kOptions),
                                   [&](const Option& k) { return k.level == o.level() && k.name == o.name(); });
    if (!known || o.value().size() > kMaxValue)
      return fail(Code::kImageCorrupt, cat("socket option ", o.level(), ":", o.name(), " of file ", extra.file_id()));
    if (::setsockopt(socket, o.level(), o.name(), o.value().data(), static_cast<socklen_t>(o.value().size())) < 0)
      return fail_sys(Code::kRestoreFailed, "setsockopt", cat(o.level(), ":", o.name()));
  }
  return {};
}

}  // namespace

Result<void> restore_buffers(int socket, const Opts& opts) {
  const std::pair<int, int> kinds[] = {{SO_SNDBUF, 32 /*SNDBUFFORCE*/}, {SO_RCVBUF, 33 /*RCVBUFFORCE*/}};
  const uint32_t sizes[] = {opts.so_sndbuf(), opts.so_rcvbuf()};
  const uint32_t locked = opts.so_buf_lock();
  for (int i = 0; i < 2; ++i) {
    const bool lock = locked & (i == 0 ? 1u : 2u);  // SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK
    const auto now = get_int(socket, SOL_SOCKET, kinds[i].first);
    // A size that is set stops growing by itself, so set only what somebody has set.
    if (!lock && now && static_cast<uint32_t>(*now) == sizes[i]) continue;
    // The kernel doubles what it is given.
    const int half = static_cast<int>(std::min(sizes[i], uint32_t{INT32_MAX}) / 2);
    auto set = set_int(socket, SOL_SOCKET, kinds[i].second, half, "buffer size");
    // Beyond the limits of the host (net.core.wmem_max, rmem_max) only the host's root may go, not a user namespace's.
    if (!set && set.error().sys_errno() == EPERM)
      if (auto limited = set_int(socket, SOL_SOCKET, kinds[i].first, half, "buffer size");
          limited && get_int(socket, SOL_SOCKET, kinds[i].first) == 2 * half)
        set = {};
    if (!set && set.error().sys_errno() == EPERM)
      return fail(Code::kPermission, cat("a socket's buffer of ", sizes[i], " bytes, more than the host allows ",
                                         "(net.core.rmem_max, wmem_max), takes CAP_NET_ADMIN"));
    TRY(std::move(set));
  }
  if (opts.has_so_buf_lock() && get_int(socket, SOL_SOCKET, kBufLock))
    TRY(set_int(socket, SOL_SOCKET, kBufLock, static_cast<int>(locked & 3), "SO_BUF_LOCK"));
  return {};
}

std::optional<int> get_int(int socket, int level, int name) {
  int value = 0;
  socklen_t size = sizeof(value);
  if (::getsockopt(socket, level, name, &value, &size) < 0) return std::nullopt;
  return value;
}

Result<void> set_int(int socket, int level, int name, int value, std::string_view what) {
  if (::setsockopt(socket, level, name, &value, sizeof(value)) < 0)
    return fail_sys(Code::kRestoreFailed, "setsockopt", cat(what, " = ", value));
  return {};
}

Result<void> check_inet_options(const Candidate& c, const DumpEnv&, int type) {
  const int socket = c.copy.get();
  sock_filter none{};
  socklen_t size = 0;
  if (::getsockopt(socket, SOL_SOCKET, SO_GET_FILTER, &none, &size) < 0 && errno == EACCES)
    return refuse(c, "with a packet filter that is an eBPF program");
  if (type == SOCK_STREAM) {
    char protocol[16] = {};
    size = sizeof(protocol);
    if (::getsockopt(socket, IPPROTO_TCP, TCP_ULP, protocol, &size) == 0 && size > 0 && protocol[0])
      return refuse(c, cat("with the upper layer protocol ", protocol));
    return {};
  }
  if (get_int(socket, IPPROTO_UDP, UDP_ENCAP).value_or(0)) return refuse(c, "with encapsulation");
  if (get_int(socket, IPPROTO_UDP, UDP_CORK).value_or(0)) return refuse(c, "that holds data back (UDP_CORK)");
  return {};
}

Result<void> dump_inet_options(const Candidate& c, const DumpEnv& env, pb::inet_sk_entry& entry, DumpOutput& out,
                               const pb::socket_extra* more) {
  const int socket = c.copy.get();
  Opts& opts = *entry.mutable_opts();
  TRY(dump_common_options(socket, opts));
  const auto* locked =
      env.connections && env.connections->contains(c.st.st_ino) ? &env.connections->at(c.st.st_ino) : nullptr;
  opts.set_reuseaddr(locked ? locked->reuse : get_int(socket, SOL_SOCKET, SO_REUSEADDR).value_or(0) != 0);
  put_filter(locked ? locked->filter : TRY(get_filter(socket)), opts);
  for (const auto& f : kFlags)
    if (const auto value = get_int(socket, SOL_SOCKET, f.name)) (opts.*f.set)(*value != 0);
  for (const auto& n : kNumbers)
    if (const auto value = get_int(socket, n.level, n.name)) (opts.*n.set)(static_cast<uint32_t>(*value));
  char device[IFNAMSIZ] = {};
  socklen_t size = sizeof(device);
  if (::getsockopt(socket, SOL_SOCKET, SO_BINDTODEVICE, device, &size) == 0 && device[0]) opts.set_so_bound_dev(device);
  if (entry.family() == AF_INET6) entry.set_v6only(get_int(socket, IPPROTO_IPV6, IPV6_V6ONLY).value_or(0) != 0);
  if (get_int(socket, IPPROTO_IP, IP_FREEBIND).value_or(0)) entry.mutable_ip_opts()->set_freebind(true);

  // Whatever else differs from a new socket of the same kind.
  // Sockets for pings may be forbidden here, and begin as others do.
  const bool ping = entry.type() == SOCK_DGRAM && (entry.proto() == IPPROTO_ICMP || entry.proto() == IPPROTO_ICMPV6);
  const Fd fresh(::socket(static_cast<int>(entry.family()), static_cast<int>(entry.type()) | SOCK_CLOEXEC,
                          ping ? 0 : static_cast<int>(entry.proto())));
  if (!fresh) return fail_sys("socket");
  pb::socket_extra extra;
  if (more) extra = *more;
  extra.set_file_id(entry.id());
  if (const uint32_t uid = TRY(owner_of(c, env)).uid; uid != 0) extra.set_uid(uid);
  const bool connected = locked || entry.shutdown() == pb::BOTH;
  for (const auto& option : kOptions) {
    if (connected && is_of_the_connection(option)) continue;
    const auto value = get_bytes(socket, option);
    if (!value || value == get_bytes(fresh.get(), option)) continue;
    auto& o = *extra.add_options();
    o.set_level(option.level), o.set_name(option.name), o.set_value(*value);
  }
  if ((entry.family() == AF_INET || entry.family() == AF_INET6) && entry.type() != SOCK_STREAM) {
    TRY(dump_datagrams(c, env, entry, extra, out));
    TRY(dump_groups(c, env, extra));
  }
  if (more || extra.has_uid() || extra.options_size() + extra.groups_size() + extra.datagrams_size() > 0)
    out.images->add_socket_extra(extra);
  return {};
}

Result<void> restore_inet_options(int socket, const pb::inet_sk_entry& entry, const pb::socket_extra* extra) {
  const Opts& opts = entry.opts();
  if (opts.so_filter_size() > BPF_MAXINSNS)
    return fail(Error(Code::kImageCorrupt, cat("packet filter of file ", entry.id())).about("files.img"));
  if (opts.so_filter_size() > 0) TRY(set_filter(socket, filter_from(opts)));
  // A raw socket gets it by bind(2) alone.
  if (entry.family() == AF_INET6 && entry.type() != SOCK_RAW)
    TRY(set_int(socket, IPPROTO_IPV6, IPV6_V6ONLY, entry.v6only() ? 1 : 0, "IPV6_V6ONLY"));
  if (entry.ip_opts().freebind()) TRY(set_int(socket, IPPROTO_IP, IP_FREEBIND, 1, "IP_FREEBIND"));
  if (const auto& device = opts.so_bound_dev(); !device.empty())
    if (device.size() >= IFNAMSIZ || ::setsockopt(socket, SOL_SOCKET, SO_BINDTODEVICE, device.c_str(),
                                                  static_cast<socklen_t>(device.size() + 1)) < 0)
      return fail_sys(Code::kRestoreFailed, "bind a socket to network device", device);
  for (const auto& f : kFlags)
    if ((opts.*f.get)()) TRY(set_int(socket, SOL_SOCKET, f.name, 1, cat("socket option ", f.name)));
  for (const auto& n : kNumbers) {
    const auto now = get_int(socket, n.level, n.name);
    const int wanted = static_cast<int>((opts.*n.get)());
    // An absent number reads as 0, which none of them has unless it is its default.
    if (!now || *now == wanted || wanted == 0) continue;
    TRY(set_int(socket, n.level, n.name, wanted, cat("socket option ", n.name)));
  }
  TRY(restore_common_options(socket, opts));
  if (extra) TRY(restore_extra(socket, *extra));
  return restore_buffers(socket, opts);
}

}  // namespace stasis::files
