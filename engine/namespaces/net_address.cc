// SPDX-License-Identifier: Apache-2.0
// Addresses and routes: the images hold the kernel's own messages, and restore asks for each anew.
// Of what an image says only known attributes are passed on: others could name other namespaces.
#include <arpa/inet.h>

#include <cerrno>

#include "engine/base/io.h"
#include "engine/namespaces/net.h"

namespace stasis::namespaces {
namespace {

using kernel::attribute;
using kernel::NetlinkMessage;

// The first four bytes of what ip(8) saves.
constexpr uint32_t kAddressMagic = 0x47361222, kRouteMagic = 0x45311224;
constexpr uint16_t kCreate = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;

Result<void> dump_file(image::Writer& images, const std::string& name, uint32_t magic,
                       const std::vector<std::string>& messages) {
  auto file = TRY(images.open_raw(name));
  TRY(file.append(&magic, sizeof(magic)));
  for (const auto& raw : messages) TRY(file.append(raw.data(), raw.size()));
  return file.close();
}

Result<std::vector<std::string>> load_file(const image::Reader& images, const std::string& name, uint32_t magic) {
  if (!images.exists(name)) return std::vector<std::string>();
  const Fd fd = TRY(images.open_raw(name));
  const std::string bytes = TRY(read_all(fd.get(), 16u << 20, name));
  if (bytes.empty()) return std::vector<std::string>();  // CRIU leaves it empty where there is no IPv6
  uint32_t found = 0;
  if (bytes.size() >= sizeof(found)) std::memcpy(&found, bytes.data(), sizeof(found));
  const auto messages = found == magic ? kernel::split_messages(std::string_view(bytes).substr(4)) : std::nullopt;
  if (!messages)
    return fail(Error(Code::kImageCorrupt, cat(name, ": not a list of netlink messages, or cut short")).about(name));
  return std::move(*messages);
}

std::string text_of(int family, std::string_view address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.size() == (family == AF_INET ? 4u : 16u)) ::inet_ntop(family, address.data(), text, sizeof(text));
  return text;
}

std::string describe(const kernel::Parsed<ifaddrmsg>& address) {
  auto at = address.attributes.find(IFA_LOCAL);
  if (at == address.attributes.end()) at = address.attributes.find(IFA_ADDRESS);
  const std::string text = at == address.attributes.end() ? "?" : text_of(address.head.ifa_family, at->second);
  return cat(text, "/", unsigned{address.head.ifa_prefixlen});
}

std::string describe(const kernel::Parsed<rtmsg>& route) {
  const auto text = [&](uint16_t type) {
    const auto at = route.attributes.find(type);
    return at == route.attributes.end() ? std::string() : text_of(route.head.rtm_family, at->second);
  };
  const std::string to = text(RTA_DST), via = text(RTA_GATEWAY);
  return cat(to.empty() ? "default" : cat(to, "/", unsigned{route.head.rtm_dst_len}), via.empty() ? "" : " via ", via);
}

// Next hops carry flags that only the kernel may set (dead, link down).
std::optional<std::string> clean_hops(std::string_view bytes) {
  std::string out(bytes);
  for (size_t at = 0; at < out.size();) {
    rtnexthop hop;
    if (out.size() - at < sizeof(hop)) return std::nullopt;
    std::memcpy(&hop, out.data() + at, sizeof(hop));
    if (hop.rtnh_len < sizeof(hop) || hop.rtnh_len > out.size() - at) return std::nullopt;
    const auto attributes =
        kernel::parse_attributes(std::string_view(out).substr(at + sizeof(hop), hop.rtnh_len - sizeof(hop)));
    if (!attributes || attributes->contains(RTA_ENCAP)) return std::nullopt;
    hop.rtnh_flags &= RTNH_F_ONLINK;
    std::memcpy(out.data() + at, &hop, sizeof(hop));
    at += RTNH_ALIGN(hop.rtnh_len);
  }
  return out;
}

Result<void> check_address(const std::string& raw, const std::string& name, const std::set<uint32_t>& devices) {
  const auto address = kernel::parse_message<ifaddrmsg>(raw);
  if (!address || address->header.nlmsg_type != RTM_NEWADDR ||
      (address->head.ifa_family != AF_INET && address->head.ifa_family != AF_INET6))
    return fail(Error(Code::kImageCorrupt, cat(name, ": a message that is no address")).about(name));
  if (!devices.contains(address->head.ifa_index))
    return fail(Error(Code::kImageCorrupt, cat(name, ": ", describe(*address), " belongs to no device of the images"))
                    .about(name));
  return {};
}

Result<void> check_route(const std::string& raw, const std::string& name, int family) {
  const auto route = kernel::parse_message<rtmsg>(raw);
  if (!route || route->header.nlmsg_type != RTM_NEWROUTE || route->head.rtm_family != family)
    return fail(Error(Code::kImageCorrupt, cat(name, ": a message that is no route")).about(name));
  if (route->attributes.contains(RTA_ENCAP) || route->attributes.contains(RTA_NH_ID))
    return fail(Error(Code::kUnsupportedNamespace,
                      cat(name, ": ", describe(*route), " has an encapsulation or a next-hop object"))
                    .about(name));
  if (const auto hops = route->attributes.find(RTA_MULTIPATH);
      hops != route->attributes.end() && !clean_hops(hops->second))
    return fail(Error(Code::kImageCorrupt, cat(name, ": next hops of ", describe(*route))).about(name));
  return {};
}

Result<void> restore_route(kernel::Netlink& inside, const kernel::Parsed<rtmsg>& route) {
  rtmsg head = route.head;
  head.rtm_flags &= RTNH_F_ONLINK;
  NetlinkMessage request(RTM_NEWROUTE, kCreate | NLM_F_APPEND, head);
  for (uint16_t type : {RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS,
                        RTA_FLOW, RTA_TABLE, RTA_VIA, RTA_PREF, RTA_EXPIRES, RTA_MULTIPATH}) {
    const auto at = route.attributes.find(type);
    if (at == route.attributes.end()) continue;
    if (type == RTA_MULTIPATH)
      request.attr(type, clean_hops(at->second).value_or(""));
    else
      request.attr(type, at->second);
  }
  return inside.ask(request, cat("route ", describe(route)));
}

}  // namespace

Result<void> dump_messages(uint32_t id, const NetState& state, image::Writer& images) {
  TRY(dump_file(images, cat("ifaddr-", id, ".img"), kAddressMagic, state.addresses));
  TRY(dump_file(images, cat("route-", id, ".img"), kRouteMagic, state.routes));
  return dump_file(images, cat("route6-", id, ".img"), kRouteMagic, state.routes6);
}

Result<NetMessages> load_messages(uint32_t id, const image::Reader& images, const std::set<uint32_t>& devices) {
  NetMessages out;
  const std::string addresses = cat("ifaddr-", id, ".img");
  for (auto& raw : TRY(load_file(images, addresses, kAddressMagic))) {
    TRY(check_address(raw, addresses, devices));
    out.addresses.push_back(std::move(raw));
  }
  for (auto [stem, family] : {std::pair{"route", AF_INET}, {"route6", AF_INET6}}) {
    const std::string name = cat(stem, "-", id, ".img");
    for (auto& raw : TRY(load_file(images, name, kRouteMagic))) {
      TRY(check_route(raw, name, family));
      out.routes.push_back(std::move(raw));
    }
  }
  return out;
}

Result<void> restore_addresses(kernel::Netlink& inside, const std::vector<std::string>& addresses) {
  for (const auto& raw : addresses) {
    const auto address = kernel::parse_message<ifaddrmsg>(raw);
    if (!address) return fail(Code::kImageCorrupt, "an address that cannot be read");
    const uint32_t flags = attribute<uint32_t>(address->attributes, IFA_FLAGS).value_or(address->head.ifa_flags);
    NetlinkMessage request(RTM_NEWADDR, kCreate | NLM_F_EXCL, address->head);
    for (uint16_t type : {IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_ANYCAST, IFA_CACHEINFO, IFA_MULTICAST,
                          IFA_RT_PRIORITY, IFA_PROTO})
      if (const auto at = address->attributes.find(type); at != address->attributes.end())
        request.attr(type, at->second);
    // Nobody else can have taken the address of a container that was here all the time, and sockets
    // are bound to it at once: no duplicate address detection.
    const bool detect = address->head.ifa_family != AF_INET6 || (flags & IFA_F_DADFAILED);
    request.attr_u32(IFA_FLAGS, detect ? flags : flags | IFA_F_NODAD);
    // The loopback device has got its own when it went up.
    auto made = inside.ask(request, cat("address ", describe(*address)));
    if (!made && made.error().sys_errno() != EEXIST) return made;
  }
  return {};
}

Result<void> restore_routes(kernel::Netlink& inside, std::vector<std::string> routes) {
  while (!routes.empty()) {
    std::vector<std::string> later;
    std::optional<Error> why;
    for (auto& raw : routes) {
      const auto route = kernel::parse_message<rtmsg>(raw);
      if (!route) return fail(Code::kImageCorrupt, "a route that cannot be read");
      // The kernel makes these again, from the addresses and from what routers say.
      if (route->head.rtm_protocol == RTPROT_KERNEL || route->head.rtm_protocol == RTPROT_RA ||
          route->head.rtm_protocol == RTPROT_REDIRECT || (route->head.rtm_flags & RTM_F_CLONED))
        continue;
      auto made = restore_route(inside, *route);
      if (made || made.error().sys_errno() == EEXIST) continue;
      why = std::move(made).error();
      later.push_back(std::move(raw));
    }
    if (later.size() == routes.size()) return fail(std::move(*why).with_code(Code::kRestoreFailed));
    routes = std::move(later);
  }
  return {};
}

}  // namespace stasis::namespaces
