// SPDX-License-Identifier: Apache-2.0
#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/neighbour.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>

#include "engine/namespaces/net.h"

namespace stasis::namespaces {
namespace {

using kernel::attribute;
using kernel::attribute_name;
using kernel::Netlink;
using kernel::NetlinkMessage;
using Link = kernel::Parsed<ifinfomsg>;

constexpr uint16_t kDump = NLM_F_REQUEST | NLM_F_DUMP;

Error obstacle(std::string what, std::string object) {
  return Error(Code::kUnsupportedNamespace, cat("the container's network namespace has ", what)).about(object);
}

// Fallback devices of tunnel modules appear in every namespace, down and without addresses.
bool is_fallback(std::string_view name) {
  static constexpr std::string_view kNames[] = {"tunl0",    "gre0", "gretap0", "erspan0", "ip_vti0",
                                                "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

// Why this device cannot be made again; empty if it can. Fills the entry's type and its own part.
std::string describe(const Link& link, pb::net_device_entry& device) {
  if (link.head.ifi_type == ARPHRD_LOOPBACK) return device.set_type(pb::LOOPBACK), "";
  const auto info_at = link.attributes.find(IFLA_LINKINFO);
  const auto info = info_at == link.attributes.end() ? kernel::Attributes() : kernel::parse_attributes(info_at->second);
  if (!info) return ", whose description cannot be read";
  const std::string kind = attribute_name(*info, IFLA_INFO_KIND);
  const bool outside = link.attributes.contains(IFLA_LINK_NETNSID);
  if (link.head.ifi_type != ARPHRD_ETHER)
    return cat(" of kind ", kind.empty() ? cat("ARPHRD ", link.head.ifi_type) : kind,
               ", which cannot be checkpointed yet");
  if (kind.empty()) return device.set_type(pb::EXTLINK), "";
  if (kind == "veth") {
    device.set_type(pb::VETH);
    if (!outside) return " of kind veth with both ends inside, which cannot be checkpointed yet";
    device.set_peer_ifindex(attribute<uint32_t>(link.attributes, IFLA_LINK).value_or(0));
    return "";
  }
  if (kind == "macvlan") {
    device.set_type(pb::MACVLAN);
    if (!outside) return " of kind macvlan on a device inside, which cannot be checkpointed yet";
    const auto data_at = info->find(IFLA_INFO_DATA);
    const auto data = data_at == info->end() ? std::nullopt : kernel::parse_attributes(data_at->second);
    const auto mode = data ? attribute<uint32_t>(*data, IFLA_MACVLAN_MODE) : std::nullopt;
    if (!mode) return " of kind macvlan without a mode";
    if (*mode == MACVLAN_MODE_SOURCE) return " of kind macvlan in source mode, which cannot be checkpointed yet";
    device.mutable_macvlan()->set_mode(*mode);
    if (const auto flags = attribute<uint16_t>(*data, IFLA_MACVLAN_FLAGS)) device.mutable_macvlan()->set_flags(*flags);
    return "";
  }
  return cat(" of kind ", kind, ", which cannot be checkpointed yet");
}

bool has_xdp(const Link& link) {
  const auto at = link.attributes.find(IFLA_XDP);
  const auto xdp = at == link.attributes.end() ? std::nullopt : kernel::parse_attributes(at->second);
  return xdp && attribute<uint8_t>(*xdp, IFLA_XDP_ATTACHED).value_or(0) != 0;
}

Result<void> read_links(Netlink& route, NetState& state, std::vector<Error>& obstacles) {
  ifinfomsg all{};
  for (const auto& raw : TRY(route.dump(NetlinkMessage(RTM_GETLINK, kDump, all), "RTM_GETLINK"))) {
    const auto link = kernel::parse_message<ifinfomsg>(raw);
    if (!link) return fail(Code::kSystem, "RTM_GETLINK: an answer that cannot be read");
    pb::net_device_entry device;
    const std::string name = attribute_name(link->attributes, IFLA_IFNAME);
    if (is_fallback(name) && !(link->head.ifi_flags & IFF_UP)) continue;
    device.set_name(name);
    device.set_ifindex(static_cast<uint32_t>(link->head.ifi_index));
    device.set_flags(link->head.ifi_flags);
    device.set_mtu(attribute<uint32_t>(link->attributes, IFLA_MTU).value_or(0));
    // The loopback device has a MAC of zeros, which no kernel lets anybody set: CRIU would try.
    const bool loopback = link->head.ifi_type == ARPHRD_LOOPBACK;
    if (const auto mac = link->attributes.find(IFLA_ADDRESS); mac != link->attributes.end() && !loopback)
      device.set_address(std::string(mac->second));
    std::string why = describe(*link, device);
    if (why.empty() && link->attributes.contains(IFLA_MASTER))
      why = ", which is part of a bridge or bond inside; that cannot be checkpointed yet";
    if (why.empty() && has_xdp(*link)) why = ", which has an XDP program";
    if (!why.empty())
      obstacles.push_back(obstacle(cat("a device ", name, why), cat("network device ", name)));
    else
      state.devices.push_back(std::move(device));
  }
  return {};
}

bool known_device(const NetState& state, uint32_t index) {
  return std::any_of(state.devices.begin(), state.devices.end(), [&](const auto& d) { return d.ifindex() == index; });
}

Result<void> read_addresses(Netlink& route, NetState& state) {
  ifaddrmsg all{};
  for (auto& raw : TRY(route.dump(NetlinkMessage(RTM_GETADDR, kDump, all), "RTM_GETADDR"))) {
    const auto address = kernel::parse_message<ifaddrmsg>(raw);
    if (!address) return fail(Code::kSystem, "RTM_GETADDR: an answer that cannot be read");
    // A device without its own entry is an obstacle already, or a fallback one.
    if (known_device(state, address->head.ifa_index)) state.addresses.push_back(std::move(raw));
  }
  return {};
}

// What the kernel makes again by itself, or learns again.
bool is_made_by_kernel(const rtmsg& route) {
  return route.rtm_protocol == RTPROT_KERNEL || route.rtm_protocol == RTPROT_RA ||
         route.rtm_protocol == RTPROT_REDIRECT || (route.rtm_flags & RTM_F_CLONED);
}

Result<void> read_routes(Netlink& socket, int family, NetState& state, std::vector<Error>& obstacles) {
  rtmsg all{};
  all.rtm_family = static_cast<uint8_t>(family);
  for (auto& raw : TRY(socket.dump(NetlinkMessage(RTM_GETROUTE, kDump, all), "RTM_GETROUTE"))) {
    const auto route = kernel::parse_message<rtmsg>(raw);
    if (!route) return fail(Code::kSystem, "RTM_GETROUTE: an answer that cannot be read");
    if (route->head.rtm_family != family || (route->head.rtm_flags & RTM_F_CLONED)) continue;
    const uint32_t table = attribute<uint32_t>(route->attributes, RTA_TABLE).value_or(route->head.rtm_table);
    if (table == RT_TABLE_MAIN) {
      if (route->attributes.contains(RTA_ENCAP) || route->attributes.contains(RTA_NH_ID))
        obstacles.push_back(obstacle("a route with an encapsulation or a next-hop object", "route"));
      (family == AF_INET ? state.routes : state.routes6).push_back(std::move(raw));
    } else if (!is_made_by_kernel(route->head)) {
      obstacles.push_back(
          obstacle(cat("a route in table ", table, ", which cannot be checkpointed yet"), cat("route table ", table)));
    }
  }
  return {};
}

// The three rules of IPv4 and the two of IPv6 that every namespace is born with.
void find_rule_obstacles(Netlink& socket, int family, std::vector<Error>& obstacles) {
  fib_rule_hdr all{};
  all.family = static_cast<uint8_t>(family);
  const auto rules = socket.dump(NetlinkMessage(RTM_GETRULE, kDump, all), "RTM_GETRULE");
  if (!rules) return;  // a kernel without policy routing
  size_t seen = 0, usual = 0;
  const size_t wanted = family == AF_INET ? 3 : 2;
  for (const auto& raw : *rules) {
    const auto rule = kernel::parse_message<fib_rule_hdr>(raw);
    if (!rule || rule->head.family != family) continue;
    ++seen;
    const uint32_t priority = attribute<uint32_t>(rule->attributes, FRA_PRIORITY).value_or(0);
    const uint32_t table = attribute<uint32_t>(rule->attributes, FRA_TABLE).value_or(rule->head.table);
    static constexpr uint16_t kSelectors[] = {FRA_DST,    FRA_SRC,       FRA_IIFNAME, FRA_OIFNAME,
                                              FRA_FWMARK, FRA_UID_RANGE, FRA_L3MDEV};
    const bool plain = rule->head.action == FR_ACT_TO_TBL &&
                       std::none_of(std::begin(kSelectors), std::end(kSelectors),
                                    [&](uint16_t type) { return rule->attributes.contains(type); });
    if (plain && ((priority == 0 && table == RT_TABLE_LOCAL) || (priority == 32766 && table == RT_TABLE_MAIN) ||
                  (priority == 32767 && table == RT_TABLE_DEFAULT)))
      ++usual;
    else
      obstacles.push_back(obstacle(cat("a routing rule of priority ", priority, ", which cannot be checkpointed yet"),
                                   cat("routing rule ", priority)));
  }
  if (usual < wanted && seen > 0)
    obstacles.push_back(obstacle("no longer all of the routing rules it was born with", "routing rules"));
}

// A qdisc that somebody set has a handle; the kernel's own choice has none.
void find_qdisc_obstacles(Netlink& socket, const NetState& state, std::vector<Error>& obstacles) {
  tcmsg all{};
  all.tcm_family = AF_UNSPEC;
  const auto found = socket.dump(NetlinkMessage(RTM_GETQDISC, kDump, all), "RTM_GETQDISC");
  if (!found) return;
  for (const auto& raw : *found) {
    const auto qdisc = kernel::parse_message<tcmsg>(raw);
    if (!qdisc || qdisc->head.tcm_handle == 0) continue;
    for (const auto& device : state.devices)
      if (static_cast<int>(device.ifindex()) == qdisc->head.tcm_ifindex)
        obstacles.push_back(obstacle(cat("a queueing discipline ", attribute_name(qdisc->attributes, TCA_KIND), " on ",
                                         device.name(), ", which cannot be checkpointed yet"),
                                     cat("network device ", device.name())));
  }
}

void find_neighbour_obstacles(Netlink& socket, const NetState& state, std::vector<Error>& obstacles) {
  ndmsg all{};
  const auto found = socket.dump(NetlinkMessage(RTM_GETNEIGH, kDump, all), "RTM_GETNEIGH");
  if (!found) return;
  for (const auto& raw : *found) {
    const auto neighbour = kernel::parse_message<ndmsg>(raw);
    if (!neighbour || !(neighbour->head.ndm_state & NUD_PERMANENT)) continue;
    for (const auto& device : state.devices)
      if (static_cast<int>(device.ifindex()) == neighbour->head.ndm_ifindex)
        obstacles.push_back(
            obstacle(cat("a permanent neighbour entry on ", device.name()), cat("network device ", device.name())));
  }
}

}  // namespace

bool is_device_name(std::string_view name) {
  // "all" and "default" are directories beside those of the devices in /proc/sys/net.
  return !name.empty() && name.size() < IFNAMSIZ && name != "." && name != ".." && name != "all" && name != "default" &&
         name.find_first_of("/:% \t\n\v\f\r") == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

Result<NetState> read_net(std::vector<Error>& obstacles) {
  NetState state;
  auto route = TRY(Netlink::open(NETLINK_ROUTE));
  TRY(read_links(route, state, obstacles));
  TRY(read_addresses(route, state));
  TRY(read_routes(route, AF_INET, state, obstacles));
  TRY(read_routes(route, AF_INET6, state, obstacles));
  find_rule_obstacles(route, AF_INET, obstacles);
  find_rule_obstacles(route, AF_INET6, obstacles);
  find_qdisc_obstacles(route, state, obstacles);
  find_neighbour_obstacles(route, state, obstacles);
  return state;
}

void find_firewall_obstacles(const procfs::Procfs& proc, pid_t root, std::vector<Error>& obstacles) {
  // A table of the old kind exists from the first time that anybody looked at it.
  for (const char* file : {"net/ip_tables_names", "net/ip6_tables_names", "net/arp_tables_names"})
    if (const auto names = proc.text(root, file))
      for (const auto name : lines(*names))
        obstacles.push_back(obstacle(cat("an iptables table \"", name, "\", which cannot be checkpointed yet"),
                                     cat("firewall table ", name)));
  auto socket = Netlink::open(NETLINK_NETFILTER);
  if (!socket) return;  // a kernel without netfilter
  nfgenmsg all{};
  all.nfgen_family = AF_UNSPEC;
  const auto tables =
      socket->dump(NetlinkMessage(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, kDump, all), "NFT_MSG_GETTABLE");
  if (!tables) return;  // a kernel without nftables
  for (const auto& raw : *tables)
    if (const auto table = kernel::parse_message<nfgenmsg>(raw)) {
      const std::string name = attribute_name(table->attributes, NFTA_TABLE_NAME);
      if (name.starts_with("stasis-lock-")) continue;  // a checkpoint's own, engine/files/net_lock.h
      obstacles.push_back(obstacle(cat("an nftables table \"", name, "\", which cannot be checkpointed yet"),
                                   cat("firewall table ", name)));
    }
}

}  // namespace stasis::namespaces
