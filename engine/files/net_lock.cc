// SPDX-License-Identifier: Apache-2.0
#include "engine/files/net_lock.h"

#include <endian.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cerrno>
#include <set>

#include "engine/kernel/netlink.h"

namespace stasis::files {
namespace {

using kernel::NetlinkMessage;

constexpr std::string_view kPrefix = "stasis-lock-";
constexpr const char* kChain = "in";
// A peer that sends gives up after a quarter of an hour (net.ipv4.tcp_retries2), and new connections may want the
// ports.
constexpr uint64_t kLifetime = 3600u * 1000;  // milliseconds
constexpr size_t kElementsAtOnce = 500;       // an attribute has 64 KiB at most

uint16_t type_of(uint16_t message) { return static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | message); }
nfgenmsg head(uint8_t family) { return {family, NFNETLINK_V0, 0}; }
nfgenmsg batch_head() { return {AF_UNSPEC, NFNETLINK_V0, htons(NFNL_SUBSYS_NFTABLES)}; }

void be32(NetlinkMessage& m, uint16_t type, uint32_t value) { m.attr_u32(type, htonl(value)); }

// A transaction: all of it happens, or nothing.
class Transaction {
 public:
  Transaction() : bytes_(NetlinkMessage(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, batch_head()).bytes(0)) {}
  NetlinkMessage message(uint16_t what, uint16_t flags) {
    return NetlinkMessage(type_of(what), static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags), head(NFPROTO_INET));
  }
  void add(const NetlinkMessage& m) { bytes_ += m.bytes(++count_); }

  Result<void> commit(std::string_view what) {
    bytes_ += NetlinkMessage(NFNL_MSG_BATCH_END, NLM_F_REQUEST, batch_head()).bytes(count_ + 1);
    const Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
    if (!socket) return fail_sys("socket(NETLINK_NETFILTER)");
    const int room = static_cast<int>(std::max<size_t>(bytes_.size() * 2, 1u << 16));
    (void)::setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    if (::sendto(socket.get(), bytes_.data(), bytes_.size(), 0, reinterpret_cast<sockaddr*>(&kernel), sizeof(kernel)) <
        0)
      return fail_sys(what);
    return acknowledgements(socket.get(), what);
  }

 private:
  Result<void> acknowledgements(int socket, std::string_view what) {
    std::string buffer(64u << 10, '\0');
    for (uint32_t seen = 0; seen < count_;) {
      const ssize_t n = ::recv(socket, buffer.data(), buffer.size(), 0);
      if (n < 0) return fail_sys(what);
      const auto messages = kernel::split_messages(std::string_view(buffer).substr(0, static_cast<size_t>(n)));
      if (!messages || messages->empty()) return fail(Code::kSystem, cat(what, ": bad answer"));
      for (const auto& m : *messages) {
        nlmsghdr header{};
        nlmsgerr answer{};
        if (m.size() < sizeof(header) + sizeof(answer)) continue;
        std::memcpy(&header, m.data(), sizeof(header)), std::memcpy(&answer, m.data() + NLMSG_HDRLEN, sizeof(answer));
        if (header.nlmsg_type != NLMSG_ERROR) continue;
        ++seen;
        if (answer.error == 0) continue;
        errno = -answer.error;
        return fail_sys(what);
      }
    }
    return {};
  }

  std::string bytes_;
  uint32_t count_ = 0;
};

// One expression of a rule.
template <class Fill>
void expression(NetlinkMessage& m, const char* name, Fill fill) {
  const size_t element = m.begin(NFTA_LIST_ELEM | NLA_F_NESTED);
  m.attr_name(NFTA_EXPR_NAME, name);
  const size_t data = m.begin(NFTA_EXPR_DATA | NLA_F_NESTED);
  fill();
  m.end(data);
  m.end(element);
}

void meta(NetlinkMessage& m, uint32_t key) {
  expression(m, "meta", [&] { be32(m, NFTA_META_KEY, key), be32(m, NFTA_META_DREG, NFT_REG32_00); });
}

void payload(NetlinkMessage& m, uint32_t base, uint32_t offset, uint32_t length, uint32_t reg) {
  expression(m, "payload", [&] {
    be32(m, NFTA_PAYLOAD_DREG, reg), be32(m, NFTA_PAYLOAD_BASE, base);
    be32(m, NFTA_PAYLOAD_OFFSET, offset), be32(m, NFTA_PAYLOAD_LEN, length);
  });
}

void equals(NetlinkMessage& m, std::string_view value) {
  expression(m, "cmp", [&] {
    be32(m, NFTA_CMP_SREG, NFT_REG32_00), be32(m, NFTA_CMP_OP, NFT_CMP_EQ);
    const size_t data = m.begin(NFTA_CMP_DATA | NLA_F_NESTED);
    m.attr(NFTA_DATA_VALUE, value);
    m.end(data);
  });
}

void verdict(NetlinkMessage& m, int code) {
  expression(m, "immediate", [&] {
    be32(m, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    const size_t data = m.begin(NFTA_IMMEDIATE_DATA | NLA_F_NESTED);
    const size_t inner = m.begin(NFTA_DATA_VERDICT | NLA_F_NESTED);
    be32(m, NFTA_VERDICT_CODE, static_cast<uint32_t>(code));
    m.end(inner);
    m.end(data);
  });
}

// A set of connections: peer's address and port, own address and port.
struct Family {
  const char* set;
  uint8_t protocol;         // NFPROTO_*
  uint32_t size;            // of an address
  uint32_t source, target;  // offsets in the header
};
constexpr Family kFamilies[] = {{"v4", NFPROTO_IPV4, 4, 12, 16}, {"v6", NFPROTO_IPV6, 16, 8, 24}};
uint32_t key_size(const Family& f) { return 2 * (f.size + 4); }

void add_table(Transaction& t, const std::string& name) {
  auto table = t.message(NFT_MSG_NEWTABLE, NLM_F_CREATE);
  table.attr_name(NFTA_TABLE_NAME, name);
  t.add(table);
  auto chain = t.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE);
  chain.attr_name(NFTA_CHAIN_TABLE, name), chain.attr_name(NFTA_CHAIN_NAME, kChain);
  const size_t hook = chain.begin(NFTA_CHAIN_HOOK | NLA_F_NESTED);
  be32(chain, NFTA_HOOK_HOOKNUM, NF_INET_LOCAL_IN), be32(chain, NFTA_HOOK_PRIORITY, static_cast<uint32_t>(-400));
  chain.end(hook);
  chain.attr_name(NFTA_CHAIN_TYPE, "filter");
  t.add(chain);
  auto rule = t.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
  rule.attr_name(NFTA_RULE_TABLE, name), rule.attr_name(NFTA_RULE_CHAIN, kChain);
  const size_t list = rule.begin(NFTA_RULE_EXPRESSIONS | NLA_F_NESTED);
  meta(rule, NFT_META_MARK);
  equals(rule, std::string_view(reinterpret_cast<const char*>(&kTcpMark), 4));
  verdict(rule, NF_ACCEPT);
  rule.end(list);
  t.add(rule);
}

void add_set(Transaction& t, const std::string& name, const Family& f, uint32_t id, uint32_t size) {
  auto set = t.message(NFT_MSG_NEWSET, NLM_F_CREATE);
  set.attr_name(NFTA_SET_TABLE, name), set.attr_name(NFTA_SET_NAME, f.set);
  be32(set, NFTA_SET_FLAGS, NFT_SET_TIMEOUT), be32(set, NFTA_SET_KEY_TYPE, 0), be32(set, NFTA_SET_KEY_LEN, size);
  be32(set, NFTA_SET_ID, id);
  const uint64_t lifetime = htobe64(kLifetime);
  set.attr(NFTA_SET_TIMEOUT, std::string_view(reinterpret_cast<const char*>(&lifetime), sizeof(lifetime)));
  t.add(set);
}

void add_rule(Transaction& t, const std::string& name, const Family& f, uint32_t id) {
  auto rule = t.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
  rule.attr_name(NFTA_RULE_TABLE, name), rule.attr_name(NFTA_RULE_CHAIN, kChain);
  const size_t list = rule.begin(NFTA_RULE_EXPRESSIONS | NLA_F_NESTED);
  meta(rule, NFT_META_NFPROTO);
  equals(rule, std::string_view(reinterpret_cast<const char*>(&f.protocol), 1));
  meta(rule, NFT_META_L4PROTO);
  equals(rule, std::string_view("\6", 1));
  const uint32_t words = f.size / 4, first = NFT_REG32_00;
  payload(rule, NFT_PAYLOAD_NETWORK_HEADER, f.source, f.size, first);
  payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, first + words);
  payload(rule, NFT_PAYLOAD_NETWORK_HEADER, f.target, f.size, first + words + 1);
  payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, first + 2 * words + 1);
  expression(rule, "lookup", [&] {
    rule.attr_name(NFTA_LOOKUP_SET, f.set), be32(rule, NFTA_LOOKUP_SREG, first), be32(rule, NFTA_LOOKUP_SET_ID, id);
  });
  verdict(rule, NF_DROP);
  rule.end(list);
  t.add(rule);
}

void add_elements(Transaction& t, const std::string& name, const Family& f, uint32_t id,
                  const std::vector<std::string>& keys) {
  for (size_t at = 0; at < keys.size(); at += kElementsAtOnce) {
    auto m = t.message(NFT_MSG_NEWSETELEM, NLM_F_CREATE);
    m.attr_name(NFTA_SET_ELEM_LIST_TABLE, name), m.attr_name(NFTA_SET_ELEM_LIST_SET, f.set);
    be32(m, NFTA_SET_ELEM_LIST_SET_ID, id);
    const size_t list = m.begin(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED);
    for (size_t i = at; i < std::min(keys.size(), at + kElementsAtOnce); ++i) {
      const size_t element = m.begin(NFTA_LIST_ELEM | NLA_F_NESTED);
      const size_t key = m.begin(NFTA_SET_ELEM_KEY | NLA_F_NESTED);
      m.attr(NFTA_DATA_VALUE, keys[i]);
      m.end(key);
      m.end(element);
    }
    m.end(list);
    t.add(m);
  }
}

std::string port_word(uint16_t number) {
  const uint16_t port = htons(number);
  return std::string(reinterpret_cast<const char*>(&port), 2) + std::string(2, '\0');
}

// SYN, and not the answer to one.
void asks_for_a_connection(NetlinkMessage& rule) {
  constexpr uint32_t kFlags = 13;  // in the header of TCP
  constexpr uint8_t kSyn = 2, kSynAck = 0x12;
  auto value = [&](uint16_t type, uint8_t byte) {
    const size_t data = rule.begin(static_cast<uint16_t>(type | NLA_F_NESTED));
    rule.attr(NFTA_DATA_VALUE, std::string_view(reinterpret_cast<const char*>(&byte), 1));
    rule.end(data);
  };
  meta(rule, NFT_META_L4PROTO);
  equals(rule, std::string_view("\6", 1));
  payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, kFlags, 1, NFT_REG32_00);
  expression(rule, "bitwise", [&] {
    be32(rule, NFTA_BITWISE_SREG, NFT_REG32_00), be32(rule, NFTA_BITWISE_DREG, NFT_REG32_00);
    be32(rule, NFTA_BITWISE_LEN, 1);
    value(NFTA_BITWISE_MASK, kSynAck), value(NFTA_BITWISE_XOR, 0);
  });
  equals(rule, std::string_view(reinterpret_cast<const char*>(&kSyn), 1));
}

}  // namespace

std::string lock_table_name(uint64_t number) { return cat(kPrefix, hex(number).substr(2)); }

bool is_lock_table_name(std::string_view name) {
  return name.starts_with(kPrefix) && name.size() > kPrefix.size() && name.size() <= kPrefix.size() + 16 &&
         name.substr(kPrefix.size()).find_first_not_of("0123456789abcdef") == name.npos;
}

Result<bool> add_lock_table(const std::string& name, const LockedSockets& sockets) {
  std::set<std::string> all;
  std::vector<std::pair<std::string, std::string>> ends;
  for (const auto& [inode, socket] : sockets) {
    Address local, peer;
    if (::getsockname(socket.copy.get(), local.get(), &local.size) < 0) return fail_sys("getsockname");
    // Unlike getpeername(2) it tells where a connection is still to go.
    peer.size = local.storage.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    if (::getsockopt(socket.copy.get(), SOL_SOCKET, SO_PEERNAME, peer.get(), &peer.size) < 0) continue;  // it has ended
    ends.emplace_back(peer.wire() + port_word(peer.port()), local.wire() + port_word(local.port()));
    all.insert(ends.back().first + ends.back().second);
  }
  std::vector<std::string> keys[2];
  for (const auto& [peer, local] : ends)
    if (!all.contains(local + peer)) keys[peer.size() == 8 ? 0 : 1].push_back(peer + local);
  if (keys[0].empty() && keys[1].empty()) return false;
  Transaction t;
  add_table(t, name);
  for (uint32_t i = 0; i < 2; ++i) {
    add_set(t, name, kFamilies[i], i + 1, key_size(kFamilies[i]));
    add_rule(t, name, kFamilies[i], i + 1);
    add_elements(t, name, kFamilies[i], i + 1, keys[i]);
  }
  TRY(t.commit(cat("nftables: add table ", name)));
  return true;
}

Result<void> add_arrival_table(const std::string& name, const std::set<uint16_t>& ports) {
  constexpr Family kPorts{"ports", 0, 0, 0, 0};
  Transaction t;
  add_table(t, name);
  add_set(t, name, kPorts, 1, sizeof(uint32_t));
  auto rule = t.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
  rule.attr_name(NFTA_RULE_TABLE, name), rule.attr_name(NFTA_RULE_CHAIN, kChain);
  const size_t list = rule.begin(NFTA_RULE_EXPRESSIONS | NLA_F_NESTED);
  asks_for_a_connection(rule);
  payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG32_00);
  expression(rule, "lookup", [&] {
    rule.attr_name(NFTA_LOOKUP_SET, kPorts.set), be32(rule, NFTA_LOOKUP_SREG, NFT_REG32_00);
    be32(rule, NFTA_LOOKUP_SET_ID, 1);
  });
  verdict(rule, NF_DROP);
  rule.end(list);
  t.add(rule);
  std::vector<std::string> keys;
  for (const uint16_t port : ports) keys.push_back(port_word(port));
  add_elements(t, name, kPorts, 1, keys);
  return t.commit(cat("nftables: add table ", name));
}

Result<bool> remove_lock_table(const std::string& name) {
  Transaction t;
  auto table = t.message(NFT_MSG_DELTABLE, 0);
  table.attr_name(NFTA_TABLE_NAME, name);
  t.add(table);
  const auto done = t.commit(cat("nftables: delete table ", name));
  if (!done && (done.error().sys_errno() == ENOENT || done.error().sys_errno() == EPROTONOSUPPORT ||
                done.error().sys_errno() == EINVAL))
    return false;
  TRY(Result<void>(done));
  return true;
}

Result<std::vector<std::string>> lock_tables() {
  auto netlink = TRY(kernel::Netlink::open(NETLINK_NETFILTER));
  const NetlinkMessage request(type_of(NFT_MSG_GETTABLE), NLM_F_REQUEST | NLM_F_DUMP, head(NFPROTO_INET));
  std::vector<std::string> out;
  for (const auto& raw : TRY(netlink.dump(request, "nftables: list tables")))
    if (const auto m = kernel::parse_message<nfgenmsg>(raw))
      if (auto name = kernel::attribute_name(m->attributes, NFTA_TABLE_NAME); is_lock_table_name(name))
        out.push_back(std::move(name));
  return out;
}

Result<void> take_links_down() {
  auto netlink = TRY(kernel::Netlink::open(NETLINK_ROUTE));
  const NetlinkMessage request(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, ifinfomsg{});
  for (const auto& raw : TRY(netlink.dump(request, "list network devices"))) {
    const auto link = kernel::parse_message<ifinfomsg>(raw);
    if (!link || link->head.ifi_flags & IFF_LOOPBACK || !(link->head.ifi_flags & IFF_UP)) continue;
    ifinfomsg down{};
    down.ifi_index = link->head.ifi_index, down.ifi_change = IFF_UP;
    TRY(netlink.ask(NetlinkMessage(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, down), "take a network device down"));
  }
  return {};
}

}  // namespace stasis::files
