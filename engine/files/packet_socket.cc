// SPDX-License-Identifier: Apache-2.0
// packet(7) sockets: protocol, device, options, memberships. What nobody has read yet is not kept; rings are refused.
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/packet_diag.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "engine/files/inet_options.h"
#include "engine/files/kind.h"
#include "engine/kernel/netlink.h"
#include "engine/namespaces/namespaces.h"

namespace stasis::files {
namespace {

constexpr int kMaxAddress = 32;  // MAX_ADDR_LEN
// PACKET_FANOUT is the id, the mode and the flags of the group.
constexpr uint32_t kNoFanout = ~0u, kModeCbpf = 6, kModeEbpf = 7;

// struct packet_mreq with room for every address.
struct Membership {
  int index;
  uint16_t type, length;
  uint8_t address[kMaxAddress];
};

bool matches(const Candidate& c) {
  if (!S_ISSOCK(c.st.st_mode) || c.fd < 0 || get_int(c.copy.get(), SOL_SOCKET, SO_DOMAIN) != AF_PACKET) return false;
  const auto type = get_int(c.copy.get(), SOL_SOCKET, SO_TYPE);
  return type == SOCK_RAW || type == SOCK_DGRAM;
}

std::unexpected<Error> refuse(const Candidate& c, std::string_view what) {
  return fail(
      Error(Code::kUnsupportedFile, cat(c.name(), " is a packet socket ", what, ", which cannot be checkpointed yet"))
          .about(c.name()));
}

struct Look {
  packet_diag_info info{};
  std::vector<packet_diag_mclist> members;
  bool rings = false;
  uint32_t fanout = kNoFanout;
};

// packet_diag lists all of a network.
Result<Look> look(const Candidate& c, const DumpEnv& env) {
  const Fd network = TRY(env.proc.open_file(env.root_pid, "ns/net", O_RDONLY));
  packet_diag_req request{};
  request.sdiag_family = AF_PACKET;
  request.pdiag_show = PACKET_SHOW_INFO | PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG | PACKET_SHOW_FANOUT;
  const kernel::NetlinkMessage message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, request);
  std::vector<std::string> all;
  {
    const auto inside = TRY(namespaces::Inside::join({{network.get(), CLONE_NEWNET}}));
    auto diag = TRY(kernel::Netlink::open(NETLINK_SOCK_DIAG));
    auto answer = diag.dump(message, "packet_diag");
    if (!answer) return refuse(c, cat("that cannot be looked at: ", answer.error().message()));
    all = *std::move(answer);
  }
  for (const auto& raw : all) {
    const auto m = kernel::parse_message<packet_diag_msg>(raw);
    if (!m || m->head.pdiag_ino != static_cast<uint32_t>(c.st.st_ino)) continue;
    const auto info = kernel::attribute<packet_diag_info>(m->attributes, PACKET_DIAG_INFO);
    if (!info) break;
    Look out{.info = *info};
    out.rings = m->attributes.contains(PACKET_DIAG_RX_RING) || m->attributes.contains(PACKET_DIAG_TX_RING);
    // It has the flags as well, but no answer that says that there is none.
    if (m->attributes.contains(PACKET_DIAG_FANOUT))
      out.fanout = static_cast<uint32_t>(get_int(c.copy.get(), SOL_PACKET, PACKET_FANOUT).value_or(-1));
    if (const auto list = m->attributes.find(PACKET_DIAG_MCLIST); list != m->attributes.end())
      for (size_t at = 0; at + sizeof(packet_diag_mclist) <= list->second.size(); at += sizeof(packet_diag_mclist))
        std::memcpy(&out.members.emplace_back(), list->second.data() + at, sizeof(packet_diag_mclist));
    return out;
  }
  return refuse(c, "that packet_diag does not list");
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  TRY(owner_of(c, env));
  TRY(check_socket_namespace(c, env));
  const auto seen = TRY(look(c, env));
  if (seen.rings) return refuse(c, "with a ring (PACKET_RX_RING, PACKET_TX_RING)");
  const uint32_t mode = seen.fanout >> 16 & 0xff;
  if (seen.fanout != kNoFanout && (mode == kModeCbpf || mode == kModeEbpf))
    return refuse(c, "in a fanout group that a program rules");
  return check_inet_options(c, env, 0);
}

// The options that all sockets have, in the form that they are kept in.
pb::inet_sk_entry common(uint32_t id, uint32_t type) {
  pb::inet_sk_entry entry;
  entry.set_id(id), entry.set_family(AF_PACKET), entry.set_type(type), entry.set_proto(0);
  return entry;
}

Result<std::string> device_name(int socket, uint32_t index) {
  ifreq request{};
  request.ifr_ifindex = static_cast<int>(index);
  if (::ioctl(socket, SIOCGIFNAME, &request) < 0) return fail_sys("ioctl(SIOCGIFNAME)");
  return std::string(request.ifr_name);
}

void put_flags(const packet_diag_info& info, pb::packet_sock_entry& psk) {
  psk.set_version(info.pdi_version), psk.set_reserve(info.pdi_reserve);
  psk.set_timestamp(info.pdi_tstamp), psk.set_copy_thresh(info.pdi_copy_thresh);
  psk.set_aux_data((info.pdi_flags & PDI_AUXDATA) != 0), psk.set_orig_dev((info.pdi_flags & PDI_ORIGDEV) != 0);
  psk.set_vnet_hdr((info.pdi_flags & PDI_VNETHDR) != 0), psk.set_loss((info.pdi_flags & PDI_LOSS) != 0);
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  const int socket = c.copy.get();
  auto& psk = *entry.mutable_psk();
  const auto seen = TRY(look(c, env));
  entry.set_type(pb::PACKETSK);
  psk.set_id(entry.id());
  psk.set_type(static_cast<uint32_t>(get_int(socket, SOL_SOCKET, SO_TYPE).value_or(SOCK_RAW)));
  psk.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  psk.set_ns_id(env.net_ns_id);
  set_no_owner(psk.mutable_fown());
  sockaddr_ll local{};
  socklen_t size = sizeof(local);
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&local), &size) < 0) return fail_sys("getsockname", c.name());
  psk.set_protocol(local.sll_protocol);
  psk.set_ifindex(seen.info.pdi_index);
  put_flags(seen.info, psk);
  if (seen.fanout != kNoFanout) psk.set_fanout(seen.fanout);
  auto shared = common(entry.id(), psk.type());
  for (const auto& m : seen.members)
    for (uint32_t i = 0; i < m.pdmc_count; ++i) {
      auto& member = *psk.add_mclist();
      member.set_index(static_cast<uint32_t>(m.pdmc_index)), member.set_type(m.pdmc_type);
      member.set_addr(m.pdmc_addr, std::min<size_t>(m.pdmc_alen, kMaxAddress));
    }
  pb::socket_extra names;
  if (psk.ifindex() != 0) names.set_device(TRY(device_name(socket, psk.ifindex())));
  for (const auto& member : psk.mclist()) names.add_group_devices(TRY(device_name(socket, member.index())));
  TRY(dump_inet_options(c, env, shared, out, &names));
  *psk.mutable_opts() = shared.opts();
  pollfd item{socket, POLLIN, 0};
  if (!env.options.leave_running && ::poll(&item, 1, 0) == 1 && (item.revents & POLLIN))
    log::warning(c.name(), " has packets that were not read; they are not kept, ignoring");
  return {};
}

Result<uint32_t> device_index(int socket, const std::string& name, uint32_t index) {
  if (name.empty()) return index;
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof(request.ifr_name) - 1));
  if (::ioctl(socket, SIOCGIFINDEX, &request) < 0) return fail_sys(Code::kRestoreFailed, "find network device", name);
  return static_cast<uint32_t>(request.ifr_ifindex);
}

Result<void> set_flags_of(int socket, const pb::packet_sock_entry& psk) {
  const std::tuple<int, uint32_t, const char*> options[] = {
      {PACKET_VERSION, psk.version(), "PACKET_VERSION"},
      {PACKET_RESERVE, psk.reserve(), "PACKET_RESERVE"},
      {PACKET_AUXDATA, psk.aux_data(), "PACKET_AUXDATA"},
      {PACKET_ORIGDEV, psk.orig_dev(), "PACKET_ORIGDEV"},
      {PACKET_VNET_HDR, psk.vnet_hdr(), "PACKET_VNET_HDR"},
      {PACKET_LOSS, psk.loss(), "PACKET_LOSS"},
      {PACKET_TIMESTAMP, psk.timestamp(), "PACKET_TIMESTAMP"},
      {PACKET_COPY_THRESH, psk.copy_thresh(), "PACKET_COPY_THRESH"}};
  for (const auto& [name, value, what] : options)
    if (value != 0) TRY(set_int(socket, SOL_PACKET, name, static_cast<int>(value), what));
  return {};
}

Result<void> join(int socket, const pb::packet_sock_entry& psk, const pb::socket_extra* extra) {
  for (int i = 0; i < psk.mclist_size(); ++i) {
    const auto& member = psk.mclist(i);
    Membership request{};
    const std::string name = extra && i < extra->group_devices_size() ? extra->group_devices(i) : std::string();
    request.index = static_cast<int>(TRY(device_index(socket, name, member.index())));
    request.type = static_cast<uint16_t>(member.type()), request.length = static_cast<uint16_t>(member.addr().size());
    std::memcpy(request.address, member.addr().data(), member.addr().size());
    if (::setsockopt(socket, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request, sizeof(request)) < 0)
      return fail_sys(Code::kRestoreFailed, "setsockopt(PACKET_ADD_MEMBERSHIP)");
  }
  return {};
}

Result<void> check_image(const pb::file_entry& file, const FileEntries&, const image::Reader&) {
  const auto& psk = file.psk();
  if (!file.has_psk() || (psk.type() != SOCK_RAW && psk.type() != SOCK_DGRAM) || psk.protocol() > 0xffff)
    return corrupt_file(file.id(), "is no packet socket");
  for (const auto& member : psk.mclist())
    if (member.addr().size() > kMaxAddress || member.type() > 0xffff) return corrupt_file(file.id(), "has a bad group");
  if (psk.has_rx_ring() || psk.has_tx_ring())
    return fail(Error(Code::kUnsupportedFile, cat("file ", file.id(), " of the images is a packet socket with a ring"))
                    .about(cat("file ", file.id())));
  return {};
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  const auto& psk = entry.psk();
  const std::string name = cat("packet socket, file ", entry.id());
  const auto* extra = find_extra(env, entry.id());
  // Nothing is received before the end: a protocol comes by bind(2).
  Fd fd(::socket(AF_PACKET, static_cast<int>(psk.type()) | SOCK_CLOEXEC, 0));
  if (!fd) return fail_sys(Code::kRestoreFailed, "socket", name);
  TRY_CTX(set_flags_of(fd.get(), psk), name);
  auto shared = common(entry.id(), psk.type());
  *shared.mutable_opts() = psk.opts();
  TRY_CTX(restore_inet_options(fd.get(), shared, extra), name);
  TRY_CTX(join(fd.get(), psk, extra), name);
  sockaddr_ll local{};
  local.sll_family = AF_PACKET, local.sll_protocol = static_cast<uint16_t>(psk.protocol());
  local.sll_ifindex = static_cast<int>(TRY(device_index(fd.get(), extra ? extra->device() : "", psk.ifindex())));
  if ((local.sll_protocol || local.sll_ifindex) &&
      ::bind(fd.get(), reinterpret_cast<sockaddr*>(&local), sizeof(local)) < 0)
    return fail_sys(Code::kRestoreFailed, "bind", name);
  if (psk.has_fanout() && psk.fanout() != kNoFanout)
    TRY_CTX(set_int(fd.get(), SOL_PACKET, PACKET_FANOUT, static_cast<int>(psk.fanout()), "PACKET_FANOUT"), name);
  if (extra && extra->has_uid() && ::fchown(fd.get(), extra->uid(), static_cast<gid_t>(-1)) < 0)
    return fail_sys(Code::kRestoreFailed, "fchown", name);
  TRY(set_flags(fd.get(), psk.flags(), name));
  return fd;
}

}  // namespace

const FileKind kPacketSocket = {"packet socket", pb::PACKETSK, matches, check,   dump,       restore,
                                nullptr,         nullptr,      nullptr, nullptr, check_image};

}  // namespace stasis::files
