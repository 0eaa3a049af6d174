// SPDX-License-Identifier: Apache-2.0
// Datagrams that nobody has read are looked at one after another, and are sent again at restore, from where they came:
// a raw socket may say anything of itself, and what goes to an address of our own goes through the loopback device.
#include "engine/files/datagrams.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include <cerrno>

#include "engine/files/inet_address.h"
#include "engine/files/inet_options.h"
#include "engine/files/tcp.h"

namespace stasis::files {
namespace {

constexpr int kPeekOff = 42, kMemInfo = 55;  // SO_PEEK_OFF, SO_MEMINFO
constexpr int kUdpGro = 104, kIpOriginal = 20, kIpv6Original = 74;
constexpr size_t kRoom = 1u << 17;  // more than a datagram can be, and what was put together of several (UDP_GRO)

struct Datagram {
  pb::datagram entry;
  std::string bytes;
  size_t piece = 0;  // of this size each were those that were put together
};

std::string wire(const void* address, size_t size) { return std::string(static_cast<const char*>(address), size); }

template <class T>
bool get(cmsghdr* c, T& value) {
  if (c->cmsg_len < CMSG_LEN(sizeof(value))) return false;
  std::memcpy(&value, CMSG_DATA(c), sizeof(value));
  return true;
}

void take_ip(cmsghdr* c, pb::datagram& entry) {
  int number = 0;
  in_pktinfo info{};
  sockaddr_in original{};
  if (c->cmsg_type == IP_TTL && get(c, number)) entry.set_ttl(static_cast<uint32_t>(number) & 255);
  if (c->cmsg_type == IP_TOS) entry.set_tos(*CMSG_DATA(c));
  if (c->cmsg_type == IP_PKTINFO && get(c, info)) entry.set_target(wire(&info.ipi_addr, 4));
  if (c->cmsg_type == kIpOriginal && get(c, original)) entry.set_target(wire(&original.sin_addr, 4));
}

void take_ipv6(cmsghdr* c, pb::datagram& entry) {
  int number = 0;
  in6_pktinfo info{};
  sockaddr_in6 original{};
  if (c->cmsg_type == IPV6_HOPLIMIT && get(c, number)) entry.set_ttl(static_cast<uint32_t>(number) & 255);
  if (c->cmsg_type == IPV6_TCLASS && get(c, number)) entry.set_tos(static_cast<uint32_t>(number) & 255);
  const bool has_info = c->cmsg_type == IPV6_PKTINFO && get(c, info);
  const bool has_original = c->cmsg_type == kIpv6Original && get(c, original);
  if (!has_info && !has_original) return;
  const in6_addr& to = has_info ? info.ipi6_addr : original.sin6_addr;
  entry.set_target(IN6_IS_ADDR_V4MAPPED(&to) ? wire(&to.s6_addr[12], 4) : wire(&to, 16));
}

Result<std::optional<Datagram>> look(int socket, std::string& room) {
  Datagram out;
  Address source;
  alignas(cmsghdr) char control[1024];
  iovec part{room.data(), room.size()};
  msghdr head{};
  head.msg_name = source.get(), head.msg_namelen = source.size;
  head.msg_iov = &part, head.msg_iovlen = 1;
  head.msg_control = control, head.msg_controllen = sizeof(control);
  const ssize_t n = ::recvmsg(socket, &head, MSG_PEEK | MSG_DONTWAIT);
  if (n < 0 && errno == EAGAIN) return std::optional<Datagram>();
  if (n < 0) return fail_sys("recvmsg(MSG_PEEK)");
  out.bytes = room.substr(0, static_cast<size_t>(n));
  out.entry.set_source(source.wire()), out.entry.set_port(source.port());
  for (cmsghdr* c = CMSG_FIRSTHDR(&head); c; c = CMSG_NXTHDR(&head, c)) {
    int number = 0;
    if (c->cmsg_level == IPPROTO_IP) take_ip(c, out.entry);
    if (c->cmsg_level == IPPROTO_IPV6) take_ipv6(c, out.entry);
    if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == kUdpGro && get(c, number) && number > 0)
      out.piece = static_cast<size_t>(number);
  }
  if (source.storage.ss_family == AF_INET6 && source.v6().sin6_scope_id != 0) {
    ifreq request{};
    request.ifr_ifindex = static_cast<int>(source.v6().sin6_scope_id);
    if (::ioctl(socket, SIOCGIFNAME, &request) == 0) out.entry.set_device(request.ifr_name);
  }
  return out;
}

void add(const Datagram& d, uint32_t file_id, pb::socket_extra& extra, std::vector<Packet>& packets) {
  size_t at = 0;
  do {
    const size_t size = std::min(d.bytes.size() - at, d.piece ? d.piece : d.bytes.size());
    Packet packet;
    packet.bytes = d.bytes.substr(at, size);
    packet.entry.set_id_for(file_id), packet.entry.set_length(static_cast<uint32_t>(size));
    packets.push_back(std::move(packet));
    *extra.add_datagrams() = d.entry;
    at += size;
  } while (at < d.bytes.size());
}

short events_of(int socket) {
  pollfd item{socket, POLLIN, 0};
  return ::poll(&item, 1, 0) < 0 ? short{0} : item.revents;
}

// Who may send from anybody's address.
Result<bool> can_send(const DumpEnv& env) {
  return !env.users || TRY(env.proc.ns(env.root_pid, "net")).inode != TRY(env.proc.ns(::getpid(), "net")).inode;
}

// Counters of a socket: bytes of its receive queue with what they cost, packets that it has dropped.
struct Received {
  uint32_t memory = 0, dropped = 0;
  bool operator==(const Received&) const = default;
};
Received received(int socket) {
  uint32_t numbers[9] = {};  // SK_MEMINFO_*
  socklen_t size = sizeof(numbers);
  (void)::getsockopt(socket, SOL_SOCKET, kMemInfo, numbers, &size);
  return {numbers[0], numbers[8]};
}

uint32_t add_words(uint32_t sum, std::string_view bytes) {
  for (size_t i = 0; i < bytes.size(); i += 2)
    sum += static_cast<uint32_t>(static_cast<uint8_t>(bytes[i]) << 8) +
           (i + 1 < bytes.size() ? static_cast<uint8_t>(bytes[i + 1]) : 0u);
  return sum;
}

template <class T>
std::string bytes_of(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

// The datagram with its header; the same for udplite(7), whose checksum covers all.
std::string with_header(const pb::datagram& from, const std::string& target, uint16_t port, uint8_t protocol,
                        const std::string& bytes) {
  udphdr head{};
  head.uh_sport = htons(static_cast<uint16_t>(from.port())), head.uh_dport = htons(port);
  const auto length = static_cast<uint16_t>(sizeof(head) + bytes.size());
  head.uh_ulen = protocol == IPPROTO_UDPLITE ? 0 : htons(length);
  uint32_t sum = uint32_t{protocol} + length;
  for (const auto& part : {from.source(), target, bytes_of(head), bytes}) {
    sum = add_words(sum, part);
    sum = (sum & 0xffff) + (sum >> 16);
  }
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  const auto check = static_cast<uint16_t>(~sum);
  head.uh_sum = check ? htons(check) : 0xffff;
  return bytes_of(head) + bytes;
}

int send_to(int raw, const pb::datagram& from, const std::string& target, uint8_t protocol, const std::string& body) {
  Address to;
  std::string head;
  if (target.size() == 4) {
    iphdr ip{};
    ip.version = 4, ip.ihl = 5, ip.ttl = from.has_ttl() ? static_cast<uint8_t>(from.ttl()) : 64, ip.protocol = protocol;
    ip.tos = static_cast<uint8_t>(from.tos());
    ip.tot_len = htons(static_cast<uint16_t>(sizeof(ip) + body.size()));
    std::memcpy(&ip.saddr, from.source().data(), 4), std::memcpy(&ip.daddr, target.data(), 4);
    head = bytes_of(ip);
    to.storage.ss_family = AF_INET, to.size = sizeof(sockaddr_in);
    std::memcpy(&to.v4().sin_addr, target.data(), 4);
  } else {
    ip6_hdr ip{};
    ip.ip6_flow = htonl(6u << 28 | (from.tos() & 255) << 20);
    ip.ip6_hlim = from.has_ttl() ? static_cast<uint8_t>(from.ttl()) : 64, ip.ip6_nxt = protocol;
    ip.ip6_plen = htons(static_cast<uint16_t>(body.size()));
    std::memcpy(&ip.ip6_src, from.source().data(), 16), std::memcpy(&ip.ip6_dst, target.data(), 16);
    head = bytes_of(ip);
    to.storage.ss_family = AF_INET6, to.size = sizeof(sockaddr_in6);
    std::memcpy(&to.v6().sin6_addr, target.data(), 16);
    if (!from.device().empty() && IN6_IS_ADDR_LINKLOCAL(&to.v6().sin6_addr))
      to.v6().sin6_scope_id = ::if_nametoindex(from.device().c_str());
  }
  const std::string all = head + body;
  return ::sendto(raw, all.data(), all.size(), 0, to.get(), to.size) < 0 ? -1 : 0;
}

// Our own address on the link that the sender is on: who it was is told with the device that the packet came by.
std::string own_link_local(const std::string& device) {
  std::string out;
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) < 0) return out;
  for (const auto* a = all; a; a = a->ifa_next) {
    if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET6 || device != a->ifa_name) continue;
    const auto& address = reinterpret_cast<const sockaddr_in6*>(a->ifa_addr)->sin6_addr;
    if (IN6_IS_ADDR_LINKLOCAL(&address)) out = wire(&address, 16);
  }
  ::freeifaddrs(all);
  return out;
}

std::string some_own_address(const pb::datagram& from) {
  if (from.source().size() == 4) return std::string("\x7f\0\0\1", 4);
  const std::string own = from.device().empty() ? std::string() : own_link_local(from.device());
  return own.empty() ? wire(&in6addr_loopback, 16) : own;
}

bool is_unicast(const std::string& address) {
  if (address.size() == 16) return static_cast<uint8_t>(address[0]) != 0xff;
  return address.size() == 4 && static_cast<uint8_t>(address[0]) < 224;
}

class Sender {
 public:
  Sender(int socket, uint16_t port, uint8_t protocol) : socket_(socket), port_(port), protocol_(protocol) {}

  // False: it did not arrive.
  bool send(const pb::datagram& from, const std::string& bytes) {
    Fd& raw = raw_[from.source().size() == 4 ? 0 : 1];
    const int family = from.source().size() == 4 ? AF_INET : AF_INET6;
    if (!raw) raw = Fd(::socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
    if (!raw || !set_int(raw.get(), SOL_SOCKET, SO_MARK, static_cast<int>(kTcpMark), "SO_MARK")) return false;
    const auto before = received(socket_);
    const std::string spare = some_own_address(from);
    const bool told = from.target().size() == from.source().size() && is_unicast(from.target());
    if ((!told || !send_from(raw.get(), from, from.target(), bytes)) && !send_from(raw.get(), from, spare, bytes))
      return false;
    // It goes over the loopback, which takes no time; where one does not arrive the others are not waited for.
    constexpr timespec kPause{0, 1'000'000};
    for (int i = 0; i < patience_ && received(socket_) == before; ++i) nanosleep(&kPause, nullptr);
    if (received(socket_) == before) patience_ = 1;
    return received(socket_).memory != before.memory;
  }

 private:
  bool send_from(int raw, const pb::datagram& from, const std::string& target, const std::string& bytes) {
    return send_to(raw, from, target, protocol_, with_header(from, target, port_, protocol_, bytes)) == 0;
  }
  int socket_;
  uint16_t port_;
  uint8_t protocol_;
  int patience_ = 2000;  // ms
  Fd raw_[2];
};

// Wherever it is to be bound later: here nobody else has the port, and nobody but us gets a packet through.
Result<uint16_t> open_for_us(int socket, int family, size_t room) {
  TRY(set_guard(socket));
  const int wanted = static_cast<int>(std::min<size_t>(room, 1u << 29));
  if (::setsockopt(socket, SOL_SOCKET, 33 /*RCVBUFFORCE*/, &wanted, sizeof(wanted)) < 0)
    (void)::setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &wanted, sizeof(wanted));
  // Where a packet came in is noted for those sockets only that ask when it comes.
  (void)set_int(socket, IPPROTO_IP, IP_PKTINFO, 1, "");
  if (family == AF_INET6) (void)set_int(socket, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1, "");
  Address any;
  any.storage.ss_family = static_cast<sa_family_t>(family);
  any.size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  if (family == AF_INET6) TRY(set_int(socket, IPPROTO_IPV6, IPV6_V6ONLY, 0, "IPV6_V6ONLY"));
  if (::bind(socket, any.get(), any.size) < 0 || ::getsockname(socket, any.get(), &any.size) < 0)
    return fail_sys(Code::kRestoreFailed, "bind", "UDP");
  return any.port();
}

Result<void> close_for_us(int socket, int family) {
  // A port that the kernel has chosen is given up together with the peer; what is queued stays.
  sockaddr nobody{};
  nobody.sa_family = AF_UNSPEC;
  if (::connect(socket, &nobody, sizeof(nobody)) < 0) return fail_sys(Code::kRestoreFailed, "connect(AF_UNSPEC)");
  (void)set_int(socket, IPPROTO_IP, IP_PKTINFO, 0, "");
  if (family == AF_INET6) (void)set_int(socket, IPPROTO_IPV6, IPV6_RECVPKTINFO, 0, "");
  return set_filter(socket, {});
}

}  // namespace

Result<void> dump_datagrams(const Candidate& c, const DumpEnv& env, const pb::inet_sk_entry& isk,
                            pb::socket_extra& extra, DumpOutput& out) {
  const int socket = c.copy.get();
  const short events = events_of(socket);
  if (!(events & POLLIN)) return {};
  const auto own = get_int(socket, SOL_SOCKET, kPeekOff);
  // An error that waits would be taken by the look, and of other sockets only the first packet can be looked at.
  const bool udp = isk.proto() == IPPROTO_UDP || isk.proto() == IPPROTO_UDPLITE;
  if (!udp || isk.type() != SOCK_DGRAM || (events & POLLERR) || !own || !TRY(can_send(env))) {
    if (!env.options.leave_running)
      log::warning(c.name(), " has datagrams that were not read; they are not kept, ignoring");
    return {};
  }
  std::string room(kRoom, '\0');
  TRY(set_int(socket, SOL_SOCKET, kPeekOff, 0, "SO_PEEK_OFF"));
  auto all = [&]() -> Result<void> {
    auto& packets = out.packets[isk.id()];
    while (const auto datagram = TRY(look(socket, room))) add(*datagram, isk.id(), extra, packets);
    if (packets.empty()) out.packets.erase(isk.id());
    return {};
  };
  auto done = all();
  TRY(set_int(socket, SOL_SOCKET, kPeekOff, *own, "SO_PEEK_OFF"));
  return done;
}

Result<void> restore_datagrams(int socket, const pb::inet_sk_entry& isk, const pb::socket_extra& extra,
                               const std::vector<Packet>& packets) {
  const int family = static_cast<int>(isk.family());
  size_t room = 1u << 16, lost = 0;
  for (const auto& packet : packets) room += 2 * packet.bytes.size() + 4096;
  const uint16_t port = TRY(open_for_us(socket, family, room));
  Sender sender(socket, port, static_cast<uint8_t>(isk.proto()));
  for (size_t i = 0; i < packets.size(); ++i)
    if (!sender.send(extra.datagrams(static_cast<int>(i)), packets[i].bytes)) ++lost;
  if (lost > 0)
    log::warning("UDP socket, file ", isk.id(), ": ", lost, " of ", packets.size(),
                 " datagrams that were not read cannot be put back, ignoring");
  return close_for_us(socket, family);
}

Result<void> check_socket_extra(const pb::socket_extra& extra, size_t packets) {
  auto bad = [&](std::string_view what) {
    return fail(
        Error(Code::kImageCorrupt, cat("manifest: socket of file ", extra.file_id(), ": ", what)).about("manifest"));
  };
  auto device = [](const std::string& name) { return name.size() < IFNAMSIZ && name.find('\0') == std::string::npos; };
  if (static_cast<size_t>(extra.datagrams_size()) != packets) return bad("datagrams");
  for (const auto& d : extra.datagrams()) {
    const size_t size = d.source().size();
    if ((size != 4 && size != 16) || d.port() > 0xffff || d.ttl() > 255 || d.tos() > 255 || !device(d.device()))
      return bad("a datagram");
  }
  for (const auto& g : extra.groups()) {
    const size_t size = g.address().size();
    if ((size != 4 && size != 16) || g.device().empty() || !device(g.device()) || g.sources_size() > 4096)
      return bad("a multicast group");
    for (const auto& source : g.sources())
      if (source.size() != size) return bad("a source of a multicast group");
  }
  if (!device(extra.device())) return bad("a network device");
  for (const auto& name : extra.group_devices())
    if (!device(name)) return bad("a network device");
  return {};
}

}  // namespace stasis::files
