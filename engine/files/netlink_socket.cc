// SPDX-License-Identifier: Apache-2.0
// netlink(7) sockets of protocols that keep nothing for a socket but its groups and options.
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "engine/files/inet_options.h"
#include "engine/files/kind.h"

namespace stasis::files {
namespace {

constexpr int kListMemberships = 9;
constexpr size_t kMaxGroupWords = 64;  // generic netlink has the most, and counts in hundreds

constexpr bool keeps_nothing(uint32_t protocol) {
  return protocol == NETLINK_ROUTE || protocol == NETLINK_SOCK_DIAG || protocol == NETLINK_XFRM ||
         protocol == NETLINK_KOBJECT_UEVENT || protocol == NETLINK_GENERIC;
}

bool matches(const Candidate& c) {
  return S_ISSOCK(c.st.st_mode) && c.fd >= 0 && get_int(c.copy.get(), SOL_SOCKET, SO_DOMAIN) == AF_NETLINK;
}

std::unexpected<Error> refuse(const Candidate& c, std::string_view what) {
  return fail(
      Error(Code::kUnsupportedFile, cat(c.name(), " is a netlink socket ", what, ", which cannot be checkpointed yet"))
          .about(c.name()));
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  TRY(owner_of(c, env));
  TRY(check_socket_namespace(c, env));
  const auto protocol = static_cast<uint32_t>(get_int(c.copy.get(), SOL_SOCKET, SO_PROTOCOL).value_or(-1));
  if (!keeps_nothing(protocol)) return refuse(c, cat("of protocol ", protocol));
  pollfd item{c.copy.get(), POLLIN, 0};
  if (::poll(&item, 1, 0) == 1 && (item.revents & (POLLIN | POLLERR))) return refuse(c, "with messages not yet read");
  return check_inet_options(c, env, 0);
}

// The options that all sockets have, in the form that they are kept in.
pb::inet_sk_entry common(uint32_t id, uint32_t type, uint32_t protocol) {
  pb::inet_sk_entry entry;
  entry.set_id(id), entry.set_family(AF_NETLINK), entry.set_type(type), entry.set_proto(protocol);
  return entry;
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  const int socket = c.copy.get();
  auto& nlsk = *entry.mutable_nlsk();
  entry.set_type(pb::NETLINKSK);
  nlsk.set_id(entry.id());
  nlsk.set_ino(static_cast<uint32_t>(c.st.st_ino));
  nlsk.set_protocol(static_cast<uint32_t>(get_int(socket, SOL_SOCKET, SO_PROTOCOL).value_or(0)));
  nlsk.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  nlsk.set_ns_id(env.net_ns_id);
  set_no_owner(nlsk.mutable_fown());
  sockaddr_nl local{}, peer{};
  socklen_t size = sizeof(local);
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&local), &size) < 0) return fail_sys("getsockname", c.name());
  nlsk.set_portid(local.nl_pid);
  size = sizeof(peer);
  const bool connected = ::getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
  nlsk.set_state(connected && (peer.nl_pid || peer.nl_groups) ? 1 : 0);
  nlsk.set_dst_portid(peer.nl_pid), nlsk.set_dst_group(peer.nl_groups);
  uint32_t words[kMaxGroupWords] = {};
  size = sizeof(words);
  if (::getsockopt(socket, SOL_NETLINK, kListMemberships, words, &size) < 0)
    return fail_sys("getsockopt(NETLINK_LIST_MEMBERSHIPS)", c.name());
  if (size > sizeof(words)) return refuse(c, "with too many groups");
  for (size_t i = 0; i < (size + 3) / sizeof(uint32_t); ++i) nlsk.add_groups(words[i]);
  auto shared = common(entry.id(), static_cast<uint32_t>(get_int(socket, SOL_SOCKET, SO_TYPE).value_or(SOCK_RAW)),
                       nlsk.protocol());
  TRY(dump_inet_options(c, env, shared, out));
  *nlsk.mutable_opts() = shared.opts();
  return {};
}

Result<void> join(int socket, const pb::netlink_sk_entry& nlsk) {
  for (int word = 0; word < nlsk.groups_size(); ++word)
    for (int bit = 0; bit < 32; ++bit)
      if (nlsk.groups(word) >> bit & 1)
        TRY(set_int(socket, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, word * 32 + bit + 1, "netlink group"));
  return {};
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  const auto& nlsk = entry.nlsk();
  if (!entry.has_nlsk() || nlsk.groups_size() > static_cast<int>(kMaxGroupWords))
    return fail(
        Error(Code::kImageCorrupt, cat("files.img: file ", entry.id(), " is no netlink socket")).about("files.img"));
  const std::string name = cat("netlink socket, file ", entry.id());
  if (!keeps_nothing(nlsk.protocol()))
    return fail(Error(Code::kUnsupportedFile, cat(name, ": protocol ", nlsk.protocol())).about(name));
  Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, static_cast<int>(nlsk.protocol())));
  if (!fd) return fail_sys(Code::kRestoreFailed, "socket", name);
  auto shared = common(entry.id(), SOCK_RAW, nlsk.protocol());
  *shared.mutable_opts() = nlsk.opts();
  TRY_CTX(restore_inet_options(fd.get(), shared, find_extra(env, entry.id())), name);
  sockaddr_nl local{};
  local.nl_family = AF_NETLINK, local.nl_pid = nlsk.portid();
  if (nlsk.portid() && ::bind(fd.get(), reinterpret_cast<sockaddr*>(&local), sizeof(local)) < 0)
    return fail_sys(Code::kRestoreFailed, "bind", cat(name, " to port ", nlsk.portid()));
  TRY_CTX(join(fd.get(), nlsk), name);
  sockaddr_nl peer{};
  peer.nl_family = AF_NETLINK, peer.nl_pid = nlsk.dst_portid(), peer.nl_groups = nlsk.dst_group();
  if ((peer.nl_pid || peer.nl_groups) && ::connect(fd.get(), reinterpret_cast<sockaddr*>(&peer), sizeof(peer)) < 0)
    return fail_sys(Code::kRestoreFailed, "connect", name);
  if (const auto* extra = find_extra(env, entry.id());
      extra && extra->has_uid() && ::fchown(fd.get(), extra->uid(), static_cast<gid_t>(-1)) < 0)
    return fail_sys(Code::kRestoreFailed, "fchown", name);
  TRY(set_flags(fd.get(), nlsk.flags(), name));
  return fd;
}

}  // namespace

const FileKind kNetlinkSocket = {"netlink socket", pb::NETLINKSK, matches, check, dump, restore};

}  // namespace stasis::files
