// SPDX-License-Identifier: Apache-2.0
// Some states of a connection come only by a packet: that the peer has closed its half, or has acknowledged that we
// have closed ours. It is made here and sent to ourselves, through the loopback device, with the peer's address.
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "engine/files/inet_options.h"
#include "engine/files/tcp.h"

namespace stasis::files {
namespace {

uint32_t add_words(uint32_t sum, std::string_view bytes) {
  for (size_t i = 0; i + 1 < bytes.size(); i += 2)
    sum += static_cast<uint32_t>(static_cast<uint8_t>(bytes[i]) << 8 | static_cast<uint8_t>(bytes[i + 1]));
  return sum;
}

template <class T>
std::string bytes_of(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string tcp_segment(Address& from, Address& to, const Segment& packet) {
  tcphdr head{};
  head.th_sport = htons(from.port()), head.th_dport = htons(to.port());
  head.th_seq = htonl(packet.seq), head.th_ack = htonl(packet.ack);
  head.th_off = sizeof(head) / 4;
  head.th_flags = packet.flags;
  head.th_win = htons(packet.window);
  uint32_t sum = add_words(0, from.wire() + to.wire() + bytes_of(head)) + IPPROTO_TCP + sizeof(head);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  head.th_sum = htons(static_cast<uint16_t>(~sum));
  return bytes_of(head);
}

}  // namespace

Result<void> inject(Address& from, Address& to, const Segment& packet) {
  const bool v4 = to.is_v4();
  const Fd raw(::socket(v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
  if (!raw) return fail_sys(Code::kRestoreFailed, "raw socket", to.text());
  TRY(set_int(raw.get(), SOL_SOCKET, SO_MARK, static_cast<int>(kTcpMark), "SO_MARK"));
  std::string segment = tcp_segment(from, to, packet);
  Address target;
  std::string head;
  if (v4) {
    iphdr ip{};
    ip.version = 4, ip.ihl = 5, ip.ttl = 64, ip.protocol = IPPROTO_TCP;
    ip.tot_len = htons(static_cast<uint16_t>(sizeof(ip) + segment.size()));
    std::memcpy(&ip.saddr, from.wire().data(), 4), std::memcpy(&ip.daddr, to.wire().data(), 4);
    head = bytes_of(ip);
    target.storage.ss_family = AF_INET;
    target.size = sizeof(sockaddr_in);
    std::memcpy(&target.v4().sin_addr, to.wire().data(), 4);
  } else {
    ip6_hdr ip{};
    ip.ip6_vfc = 6 << 4, ip.ip6_hlim = 64, ip.ip6_nxt = IPPROTO_TCP;
    ip.ip6_plen = htons(static_cast<uint16_t>(segment.size()));
    ip.ip6_src = from.v6().sin6_addr, ip.ip6_dst = to.v6().sin6_addr;
    head = bytes_of(ip);
    target = to;
    target.v6().sin6_port = 0;
  }
  const std::string all = head + segment;
  if (::sendto(raw.get(), all.data(), all.size(), 0, target.get(), target.size) < 0)
    return fail_sys(Code::kRestoreFailed, "send to the socket itself", to.text());
  return {};
}

}  // namespace stasis::files
