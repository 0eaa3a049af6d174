// SPDX-License-Identifier: Apache-2.0
// network_namespaces(7) -> netns-ID.img, netdev-ID.img and the messages of net_address.cc. Restore acts
// from outside, with one rtnetlink socket on each side, so that an error undoes what was made here.
#include "engine/namespaces/net.h"

#include <linux/if.h>
#include <linux/veth.h>
#include <net/if_arp.h>

#include <algorithm>
#include <cerrno>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"
#include "engine/namespaces/namespaces.h"

namespace stasis::namespaces {
namespace {

using kernel::attribute;
using kernel::attribute_name;
using kernel::Netlink;
using kernel::NetlinkMessage;
using Link = kernel::Parsed<ifinfomsg>;

constexpr uint16_t kAsk = NLM_F_REQUEST | NLM_F_ACK;
constexpr uint16_t kCreate = kAsk | NLM_F_CREATE | NLM_F_EXCL;
constexpr uint32_t kSettableFlags = IFF_UP | IFF_NOARP | IFF_PROMISC | IFF_ALLMULTI;

// One device, by name or number.
Result<std::string> get_link(Netlink& route, uint32_t index, const std::string& name) {
  ifinfomsg head{};
  head.ifi_index = static_cast<int>(index);
  NetlinkMessage request(RTM_GETLINK, kAsk, head);
  if (index == 0) request.attr_name(IFLA_IFNAME, name);
  return route.get(request, cat("network device ", index == 0 ? name : cat(index)));
}

// The number of a device of the host; 0 if there is none.
Result<uint32_t> index_of(Netlink& route, const std::string& name) {
  const auto raw = get_link(route, 0, name);
  if (!raw && raw.error().sys_errno() == ENODEV) return 0u;
  if (!raw) return fail(raw.error());
  const auto link = kernel::parse_message<ifinfomsg>(*raw);
  return link ? static_cast<uint32_t>(link->head.ifi_index) : 0;
}

bool is_bridge(std::string_view raw) {
  const auto link = kernel::parse_message<ifinfomsg>(raw);
  if (!link || !link->attributes.contains(IFLA_LINKINFO)) return false;
  const auto info = kernel::parse_attributes(link->attributes.at(IFLA_LINKINFO));
  return info && attribute_name(*info, IFLA_INFO_KIND) == "bridge";
}

Result<void> change_flags(Netlink& route, uint32_t index, uint32_t flags, uint32_t change, const std::string& name) {
  ifinfomsg head{};
  head.ifi_index = static_cast<int>(index);
  head.ifi_flags = flags;
  head.ifi_change = change;
  return route.ask(NetlinkMessage(RTM_NEWLINK, kAsk, head), cat("set flags of network device ", name));
}

Result<void> set_master(Netlink& route, uint32_t index, uint32_t bridge, const std::string& name) {
  ifinfomsg head{};
  head.ifi_index = static_cast<int>(index);
  NetlinkMessage request(RTM_NEWLINK, kAsk, head);
  request.attr_u32(IFLA_MASTER, bridge);
  return route.ask(request, cat("join bridge with network device ", name));
}

std::unexpected<Error> bad_option(const std::string& option, std::string why) {
  return fail(Error(Code::kBadOption, cat("--external ", option, ": ", why)).about(option));
}

// The last --external KIND[NAME]:VALUE; null if there is none.
const External* find_external(const Options& options, std::string_view kind, const std::string& name) {
  const External* found = nullptr;
  for (const auto& e : options.externals)
    if (e.kind == kind && e.key == name) found = &e;
  return found;
}

// veth[INNER]:OUTER[@BRIDGE]
Result<void> plan_veth(const External& external, Netlink& host, NetPlan::Device& device) {
  const std::string option = cat("veth[", external.key, "]:", external.value);
  const size_t at = external.value.find('@');
  device.outer = external.value.substr(0, at);
  if (at != std::string::npos) device.bridge = external.value.substr(at + 1);
  if (!is_device_name(device.outer))
    return bad_option(option, cat("\"", device.outer, "\" is not a name for a network device"));
  if (TRY(index_of(host, device.outer)) != 0)
    return bad_option(option, cat("there is a network device ", device.outer, " already"));
  if (at == std::string::npos) return {};
  if (is_device_name(device.bridge)) device.bridge_index = TRY(index_of(host, device.bridge));
  if (device.bridge_index == 0 || !is_bridge(TRY(get_link(host, device.bridge_index, device.bridge))))
    return bad_option(option, cat("there is no bridge ", device.bridge));
  return {};
}

Result<void> plan_host_device(const External* external, std::string_view kind, const std::string& name, Netlink& host,
                              NetPlan::Device& device) {
  if (!external)
    return fail(
        Error(Code::kBadOption, cat("network device ", name, " needs a device of the host; give it with --external ",
                                    kind, "[", name, "]:DEVICE"))
            .about(cat("network device ", name)));
  device.outer = external->value;
  if (is_device_name(device.outer)) device.outer_index = TRY(index_of(host, device.outer));
  if (device.outer_index == 0)
    return bad_option(cat(kind, "[", name, "]:", device.outer), cat("there is no network device ", device.outer));
  return {};
}

Result<void> plan_device(const Options& options, Netlink& host, NetPlan::Device& device) {
  const std::string& name = device.entry.name();
  if (device.entry.type() == pb::LOOPBACK) return {};
  // A device of the host may take the place of whatever it was.
  if (const auto* external = find_external(options, "netdev", name); external || device.entry.type() == pb::EXTLINK) {
    device.entry.set_type(pb::EXTLINK);
    return plan_host_device(external, "netdev", name, host, device);
  }
  if (device.entry.type() == pb::MACVLAN)
    return plan_host_device(find_external(options, "macvlan", name), "macvlan", name, host, device);
  if (device.entry.type() == pb::VETH) {
    if (const auto* external = find_external(options, "veth", name)) return plan_veth(*external, host, device);
    return {};
  }
  return fail(
      Error(Code::kUnsupportedNamespace, cat("the images have a network device ", name, " of type ",
                                             pb::nd_type_Name(device.entry.type()), ", which cannot be restored yet"))
          .about(cat("network device ", name)));
}

Result<void> check_entry(const pb::net_device_entry& entry, const std::string& file, std::set<uint32_t>& indexes) {
  const bool loopback = entry.type() == pb::LOOPBACK;
  if (!is_device_name(entry.name()) || (loopback && entry.name() != "lo") || entry.ifindex() == 0 ||
      entry.ifindex() > INT32_MAX || (entry.ifindex() == 1) != loopback || !indexes.insert(entry.ifindex()).second ||
      (entry.has_address() && entry.address().size() != 6) || (entry.type() == pb::MACVLAN && !entry.has_macvlan()))
    return fail(Error(Code::kImageCorrupt, cat(file, ": network device ", entry.ifindex())).about(file));
  return {};
}

Result<std::string> name_of(Netlink& route, uint32_t index) {
  const auto raw = TRY(get_link(route, index, ""));
  const auto link = kernel::parse_message<ifinfomsg>(raw);
  return link ? attribute_name(link->attributes, IFLA_IFNAME) : std::string();
}

}  // namespace

void find_net_obstacles(const procfs::Procfs& proc, pid_t root, std::vector<Error>& obstacles) {
  if (auto state = read_net(obstacles); !state) obstacles.push_back(std::move(state).error());
  find_firewall_obstacles(proc, root, obstacles);
}

Result<void> dump_net(uint32_t id, const std::string& external, bool empty, image::Writer& images) {
  pb::netns_entry settings;
  if (!external.empty()) {
    settings.set_ext_key(external);
    return images.put(image::Kind::kNetns, cat("netns-", id, ".img"), settings);
  }
  std::vector<Error> obstacles;
  auto state = TRY(read_net(obstacles));
  if (empty)
    std::erase_if(state.devices, [](const auto& device) { return device.type() != pb::LOOPBACK; });
  else if (!obstacles.empty())
    return fail(std::move(obstacles.front()));
  if (!empty) {
    dump_sysctls(settings);
    for (auto& device : state.devices) dump_sysctls(device);
    TRY(dump_messages(id, state, images));
  }
  dump_net_sysctls(images);
  TRY(images.put(image::Kind::kNetns, cat("netns-", id, ".img"), settings));
  return images.put_all(image::Kind::kNetdev, cat("netdev-", id, ".img"), state.devices);
}

Result<NetPlan> plan_net(uint32_t id, const image::Reader& images, const Options& options) {
  NetPlan plan;
  const std::string name = cat("netdev-", id, ".img"), settings = cat("netns-", id, ".img");
  if (!images.exists(name)) return plan;
  const bool empty = options.empty_ns & CLONE_NEWNET;
  plan.sysctls = TRY(load_net_sysctls(images));
  if (images.exists(settings) && !empty)
    plan.settings = TRY(images.read<pb::netns_entry>(image::Kind::kNetns, settings));
  auto host = TRY(Netlink::open(NETLINK_ROUTE));
  std::set<uint32_t> indexes;
  std::set<std::string> names;
  for (auto& entry : TRY(images.read_all<pb::net_device_entry>(image::Kind::kNetdev, name))) {
    TRY(check_entry(entry, name, indexes));
    NetPlan::Device device;
    device.entry = std::move(entry);
    if (empty && device.entry.type() != pb::LOOPBACK) {
      log::warning(name, ": network device ", device.entry.name(), " is left to the caller, ignoring");
      continue;
    }
    TRY(plan_device(options, host, device));
    if (!names.insert(device.entry.name()).second)
      return fail(Error(Code::kImageCorrupt, cat(name, ": two devices ", device.entry.name())).about(name));
    plan.devices.push_back(std::move(device));
  }
  if (!empty) plan.messages = TRY(load_messages(id, images, indexes));
  return plan;
}

Result<Network> Network::create(const NetPlan& plan, int root_pidfd) {
  auto host = TRY(Netlink::open(NETLINK_ROUTE));
  Fd host_ns = TRY(open_at(AT_FDCWD, "/proc/self/ns/net", O_RDONLY));
  auto there = TRY(Inside::enter(root_pidfd, CLONE_NEWNET));
  auto inside = TRY(Netlink::open(NETLINK_ROUTE));
  Fd inside_ns = TRY(open_at(AT_FDCWD, "/proc/self/ns/net", O_RDONLY));
  Network network(plan, std::move(host), std::move(inside), std::move(host_ns), std::move(inside_ns));
  TRY(restore_sysctls(plan.settings));
  restore_net_sysctls(plan.sysctls);
  for (const auto& device : plan.devices) {
    const std::string name = cat("network device ", device.entry.name());
    TRY_CTX(network.make(device), name);
    TRY(restore_sysctls(device.entry));
    TRY_CTX(network.set_up(device.entry), name);
  }
  TRY(restore_addresses(network.inside_, plan.messages.addresses));
  TRY(restore_routes(network.inside_, plan.messages.routes));
  return network;
}

Result<void> Network::make(const NetPlan::Device& device) {
  switch (device.entry.type()) {
    case pb::VETH: return make_veth(device);
    case pb::MACVLAN: return make_macvlan(device);
    case pb::EXTLINK: return take(device);
    default: return {};  // the loopback device is there
  }
}

// Both ends in one request: the inner one here, the other in the engine's namespace.
Result<void> Network::make_veth(const NetPlan::Device& device) {
  const auto& entry = device.entry;
  ifinfomsg head{};
  head.ifi_index = static_cast<int>(entry.ifindex());
  NetlinkMessage request(RTM_NEWLINK, kCreate, head);
  request.attr_name(IFLA_IFNAME, entry.name());
  if (entry.has_address()) request.attr(IFLA_ADDRESS, entry.address());
  request.attr_u32(IFLA_MTU, entry.mtu());
  const size_t info = request.begin(IFLA_LINKINFO);
  request.attr_name(IFLA_INFO_KIND, "veth");
  const size_t data = request.begin(IFLA_INFO_DATA);
  const size_t peer = request.begin(VETH_INFO_PEER);
  const ifinfomsg outer{};
  request.append(&outer, sizeof(outer));
  if (!device.outer.empty()) request.attr_name(IFLA_IFNAME, device.outer);
  request.attr_u32(IFLA_MTU, entry.mtu());
  request.attr_u32(IFLA_NET_NS_FD, static_cast<uint32_t>(host_ns_.get()));
  request.end(peer), request.end(data), request.end(info);
  TRY(inside_.ask(request, cat("create a veth pair", device.outer.empty() ? "" : " with ", device.outer)));
  const auto raw = TRY(get_link(inside_, entry.ifindex(), ""));
  const auto link = kernel::parse_message<ifinfomsg>(raw);
  const auto index = link ? attribute<uint32_t>(link->attributes, IFLA_LINK) : std::nullopt;
  if (!index) return fail(Code::kInternal, "the other end of the veth pair is not known");
  made_.push_back({*index, device.bridge_index, device.outer});
  if (!device.outer.empty()) return {};
  made_.back().name = TRY(name_of(host_, *index));
  log::warning("network device ", entry.name(), ": its outer end is ", made_.back().name,
               " and joins no bridge; --external veth[", entry.name(), "]:NAME@BRIDGE says what it shall be, ignoring");
  return {};
}

// On the host first, where the lower device is, under a name that nobody has; then moved inside.
Result<void> Network::make_macvlan(const NetPlan::Device& device) {
  const auto& entry = device.entry;
  NetlinkMessage request(RTM_NEWLINK, kCreate, ifinfomsg{});
  const std::string name = cat("st", ::getpid(), "m", entry.ifindex() % 10000);
  request.attr_name(IFLA_IFNAME, name.substr(0, IFNAMSIZ - 1));
  request.attr_u32(IFLA_LINK, device.outer_index);
  if (entry.has_address()) request.attr(IFLA_ADDRESS, entry.address());
  request.attr_u32(IFLA_MTU, entry.mtu());
  const size_t info = request.begin(IFLA_LINKINFO);
  request.attr_name(IFLA_INFO_KIND, "macvlan");
  const size_t data = request.begin(IFLA_INFO_DATA);
  request.attr_u32(IFLA_MACVLAN_MODE, entry.macvlan().mode());
  const auto flags = static_cast<uint16_t>(entry.macvlan().flags());
  if (flags) request.attr(IFLA_MACVLAN_FLAGS, std::string_view(reinterpret_cast<const char*>(&flags), sizeof(flags)));
  request.end(data), request.end(info);
  TRY(host_.ask(request, cat("create a macvlan device on ", device.outer)));
  const uint32_t index = TRY(index_of(host_, name.substr(0, IFNAMSIZ - 1)));
  made_.push_back({index, 0, name});
  TRY(move_inside(index, entry));
  made_.pop_back();  // from here on it goes with the namespace
  return {};
}

// A device of the host. It does not go with the namespace, or not under its old name: see the destructor.
Result<void> Network::take(const NetPlan::Device& device) {
  const auto& entry = device.entry;
  TRY(change_flags(host_, device.outer_index, 0, IFF_UP, device.outer));
  TRY(move_inside(device.outer_index, entry));
  taken_.push_back({entry.name(), device.outer});
  ifinfomsg head{};
  head.ifi_index = static_cast<int>(entry.ifindex());
  NetlinkMessage request(RTM_NEWLINK, kAsk, head);
  request.attr_u32(IFLA_MTU, entry.mtu());
  return inside_.ask(request, "set the MTU");
}

Result<void> Network::move_inside(uint32_t index, const pb::net_device_entry& entry) {
  ifinfomsg head{};
  head.ifi_index = static_cast<int>(index);
  NetlinkMessage request(RTM_NEWLINK, kAsk, head);
  request.attr_u32(IFLA_NET_NS_FD, static_cast<uint32_t>(inside_ns_.get()));
  request.attr_name(IFLA_IFNAME, entry.name());
  request.attr_u32(IFLA_NEW_IFINDEX, entry.ifindex());
  TRY(host_.ask(request, "move into the container"));
  const uint32_t got = TRY(index_of(inside_, entry.name()));
  if (got == entry.ifindex()) return {};
  return fail(Error(Code::kKernelFeature,
                    cat("network device ", entry.name(), " has number ", got, " instead of ", entry.ifindex()))
                  .about(cat("network device ", entry.name())));
}

Result<void> Network::set_up(const pb::net_device_entry& entry) {
  if (entry.type() == pb::LOOPBACK) {
    ifinfomsg head{};
    head.ifi_index = 1;
    NetlinkMessage request(RTM_NEWLINK, kAsk, head);
    request.attr_u32(IFLA_MTU, entry.mtu());
    TRY(inside_.ask(request, "set the MTU"));
  }
  return change_flags(inside_, entry.ifindex(), entry.flags() & kSettableFlags, kSettableFlags, entry.name());
}

Result<void> Network::connect() {
  for (const auto& end : made_) {
    if (end.bridge) TRY(set_master(host_, end.index, end.bridge, end.name));
    TRY(change_flags(host_, end.index, IFF_UP, IFF_UP, end.name));
  }
  return {};
}

Network::~Network() {
  for (const auto& end : made_) {
    ifinfomsg head{};
    head.ifi_index = static_cast<int>(end.index);
    (void)host_.ask(NetlinkMessage(RTM_DELLINK, kAsk, head), "remove a network device");
  }
  for (const auto& device : taken_) {
    const auto index = index_of(inside_, device.inner);
    if (!index || *index == 0) continue;
    (void)change_flags(inside_, *index, 0, IFF_UP, device.inner);
    ifinfomsg head{};
    head.ifi_index = static_cast<int>(*index);
    NetlinkMessage request(RTM_NEWLINK, kAsk, head);
    request.attr_u32(IFLA_NET_NS_FD, static_cast<uint32_t>(host_ns_.get()));
    request.attr_name(IFLA_IFNAME, device.outer);
    if (auto back = inside_.ask(request, "give back"); !back)
      log::warning("network device ", device.outer, ": ", back.error().message(), ", ignoring");
  }
}

}  // namespace stasis::namespaces
