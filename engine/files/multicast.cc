// SPDX-License-Identifier: Apache-2.0
// Multicast groups of a socket. Nothing lists them, but each group of its network can be asked for.
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>

#include "engine/files/datagrams.h"
#include "engine/files/inet_address.h"
#include "engine/files/inet_options.h"

namespace stasis::files {
namespace {

constexpr size_t kMaxSources = 4096;

Address address_of(std::string_view wire) {
  Address out;
  if (wire.size() == 4) {
    out.storage.ss_family = AF_INET, out.size = sizeof(sockaddr_in);
    std::memcpy(&out.v4().sin_addr, wire.data(), 4);
  } else {
    out.storage.ss_family = AF_INET6, out.size = sizeof(sockaddr_in6);
    std::memcpy(&out.v6().sin6_addr, wire.data(), 16);
  }
  return out;
}

int level_of(std::string_view wire) { return wire.size() == 4 ? IPPROTO_IP : IPPROTO_IPV6; }

// struct group_filter with room for `count` sources.
std::string filter_for(unsigned device, const std::string& group, size_t count) {
  std::string bytes(GROUP_FILTER_SIZE(std::max<size_t>(count, 1)), '\0');
  auto& filter = *reinterpret_cast<group_filter*>(bytes.data());
  filter.gf_interface = device, filter.gf_numsrc = static_cast<uint32_t>(count);
  filter.gf_group = address_of(group).storage;
  return bytes;
}

// Membership in the group, if there is one.
Result<std::optional<pb::multicast_group>> look(int socket, unsigned device, const std::string& group) {
  std::optional<pb::multicast_group> none;
  std::string bytes = filter_for(device, group, 0);
  socklen_t size = GROUP_FILTER_SIZE(0);
  if (::getsockopt(socket, level_of(group), MCAST_MSFILTER, bytes.data(), &size) < 0) return none;
  const size_t count = reinterpret_cast<group_filter*>(bytes.data())->gf_numsrc;
  if (count > kMaxSources) return fail(Code::kUnsupportedFile, cat("a multicast group with ", count, " sources"));
  bytes = filter_for(device, group, count);
  size = static_cast<socklen_t>(GROUP_FILTER_SIZE(count));
  if (::getsockopt(socket, level_of(group), MCAST_MSFILTER, bytes.data(), &size) < 0)
    return fail_sys("getsockopt(MCAST_MSFILTER)");
  const auto& filter = *reinterpret_cast<const group_filter*>(bytes.data());
  pb::multicast_group out;
  out.set_address(group);
  if (filter.gf_fmode == MCAST_INCLUDE) out.set_include(true);
  const auto* sources = reinterpret_cast<const sockaddr_storage*>(bytes.data() + offsetof(group_filter, gf_slist));
  for (size_t i = 0; i < std::min<size_t>(count, filter.gf_numsrc); ++i) {
    Address source;
    source.storage = sources[i];
    out.add_sources(group.size() == 4
                        ? source.wire()
                        : std::string(reinterpret_cast<const char*>(&source.v6().sin6_addr), sizeof(in6_addr)));
  }
  ifreq request{};
  request.ifr_ifindex = static_cast<int>(device);
  if (::ioctl(socket, SIOCGIFNAME, &request) < 0) return fail_sys("ioctl(SIOCGIFNAME)");
  out.set_device(request.ifr_name);
  return out;
}

// Device and address of every group that somebody in the network is in.
std::vector<std::pair<unsigned, std::string>> groups_of_the_network(const Candidate& c, const DumpEnv& env) {
  std::vector<std::pair<unsigned, std::string>> out;
  unsigned device = 0;
  if (const auto text = env.proc.text(c.pid, "net/igmp"))
    for (const auto line : lines(*text)) {
      const auto f = fields(line);
      if (f.empty()) continue;
      if (!line.starts_with('\t'))
        device = parse_int<unsigned>(f[0]).value_or(0);
      else if (const auto address = parse_int<uint32_t>(f[0], 16))
        out.emplace_back(device, std::string(reinterpret_cast<const char*>(&*address), sizeof(*address)));
    }
  if (const auto text = env.proc.text(c.pid, "net/igmp6"))
    for (const auto line : lines(*text)) {
      const auto f = fields(line);
      if (f.size() < 3 || f[2].size() != 32) continue;
      std::string address;
      for (size_t i = 0; i < 16; ++i)
        address += static_cast<char>(parse_int<uint8_t>(f[2].substr(2 * i, 2), 16).value_or(0));
      out.emplace_back(parse_int<unsigned>(f[0]).value_or(0), address);
    }
  return out;
}

Result<void> join_source(int socket, int device, const pb::multicast_group& group, const std::string& source) {
  group_source_req request{};
  request.gsr_interface = static_cast<uint32_t>(device);
  request.gsr_group = address_of(group.address()).storage;
  request.gsr_source = address_of(source).storage;
  if (::setsockopt(socket, level_of(group.address()), MCAST_JOIN_SOURCE_GROUP, &request, sizeof(request)) < 0)
    return fail_sys(Code::kRestoreFailed, "setsockopt(MCAST_JOIN_SOURCE_GROUP)", group.device());
  return {};
}

Result<void> join_all(int socket, int device, const pb::multicast_group& group) {
  int done = 0;
  if (group.address().size() == 4) {
    ip_mreqn request{};
    std::memcpy(&request.imr_multiaddr, group.address().data(), 4);
    request.imr_ifindex = device;
    // Who joined by the device's address leaves by it.
    ifreq own{};
    std::memcpy(own.ifr_name, group.device().data(), group.device().size());
    if (::ioctl(socket, SIOCGIFADDR, &own) == 0)
      request.imr_address = reinterpret_cast<sockaddr_in&>(own.ifr_addr).sin_addr;
    done = ::setsockopt(socket, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof(request));
  } else {
    group_req request{};
    request.gr_interface = static_cast<uint32_t>(device);
    request.gr_group = address_of(group.address()).storage;
    done = ::setsockopt(socket, IPPROTO_IPV6, MCAST_JOIN_GROUP, &request, sizeof(request));
  }
  if (done < 0) return fail_sys(Code::kRestoreFailed, "join a multicast group", group.device());
  if (group.sources_size() == 0) return {};
  std::string bytes =
      filter_for(static_cast<unsigned>(device), group.address(), static_cast<size_t>(group.sources_size()));
  auto* filter = reinterpret_cast<group_filter*>(bytes.data());
  filter->gf_fmode = MCAST_EXCLUDE;
  auto* sources = reinterpret_cast<sockaddr_storage*>(bytes.data() + offsetof(group_filter, gf_slist));
  for (int i = 0; i < group.sources_size(); ++i) sources[i] = address_of(group.sources(i)).storage;
  if (::setsockopt(socket, level_of(group.address()), MCAST_MSFILTER, bytes.data(),
                   static_cast<socklen_t>(bytes.size())) < 0)
    return fail_sys(Code::kRestoreFailed, "setsockopt(MCAST_MSFILTER)", group.device());
  return {};
}

}  // namespace

Result<void> dump_groups(const Candidate& c, const DumpEnv& env, pb::socket_extra& extra) {
  for (const auto& [device, address] : groups_of_the_network(c, env))
    if (const auto group = TRY_CTX(look(c.copy.get(), device, address), c.name())) *extra.add_groups() = *group;
  return {};
}

Result<void> restore_groups(int socket, const pb::socket_extra& extra) {
  for (const auto& group : extra.groups()) {
    ifreq request{};
    std::memcpy(request.ifr_name, group.device().data(), group.device().size());
    if (::ioctl(socket, SIOCGIFINDEX, &request) < 0)
      return fail_sys(Code::kRestoreFailed, "find network device", group.device());
    if (!group.include()) TRY(join_all(socket, request.ifr_ifindex, group));
    if (group.include())
      for (const auto& source : group.sources()) TRY(join_source(socket, request.ifr_ifindex, group, source));
  }
  return {};
}

}  // namespace stasis::files
