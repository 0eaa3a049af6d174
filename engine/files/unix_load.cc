// SPDX-License-Identifier: Apache-2.0
// unix(7) sockets and their queues in images, checked before anything is done with them.
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <set>

#include "engine/files/datagrams.h"
#include "engine/files/unix_look.h"
#include "engine/files/unix_socket.h"

namespace stasis::files {
namespace {

constexpr size_t kMaxName = sizeof(sockaddr_un::sun_path);
constexpr uint32_t kMaxPacket = 64u << 20;
constexpr uint32_t kMaxDatagram = 0xffff;
constexpr int kMaxRights = 253;  // SCM_MAX_FD

std::unexpected<Error> corrupt(const std::string& file, const std::string& what) {
  return fail(Error(Code::kImageCorrupt, cat(file, ": ", what)).about(file));
}

Result<void> check_name(const std::string& name, const std::string& where) {
  if (name.size() > kMaxName || (!name.empty() && name[0] != '\0' && name.find('\0') < name.size() - 1))
    return corrupt("files.img", cat(where, " has a bad name"));
  return {};
}

Result<void> check_socket(const pb::file_entry& file) {
  const auto& usk = file.usk();
  const std::string where = cat("unix socket ", file.id());
  TRY(check_name(usk.name(), where));
  const bool dgram = usk.type() == SOCK_DGRAM;
  if (!dgram && usk.type() != SOCK_STREAM && usk.type() != SOCK_SEQPACKET)
    return corrupt("files.img", cat(where, " is of type ", usk.type()));
  if (usk.state() != kUnixEstablished && usk.state() != kUnixClosed && usk.state() != kUnixListening)
    return corrupt("files.img", cat(where, " is in state ", usk.state()));
  if (usk.state() == kUnixListening && !(usk.uflags() & kUnixExternal) && (dgram || usk.name().empty()))
    return corrupt("files.img", cat(where, " cannot listen"));
  if (usk.backlog() > INT32_MAX || (usk.has_file_perms() && usk.file_perms().mode() > 0177777) ||
      usk.name_dir().find('\0') != std::string::npos || (usk.has_name_dir() && !usk.name_dir().starts_with('/')))
    return corrupt("files.img", cat(where, " has absurd values"));
  if (usk.opts().so_filter_size() > 0)
    return fail(Error(Code::kUnsupportedFile, cat(where, " of the images has a packet filter")).about(where));
  return {};
}

Result<void> check_extras(const std::map<uint32_t, pb::file_entry>& files, const pb::manifest_entry& manifest) {
  for (const auto& extra : manifest.unix_extras()) {
    const std::string where = cat("unix socket ", extra.file_id());
    if (const auto at = files.find(extra.file_id()); at == files.end() || !at->second.has_usk())
      return corrupt("manifest", cat(where, " is not in files.img"));
    TRY(check_name(extra.peer_name(), where));
    if (extra.mtime_nsec() > 999'999'999 || extra.peer_pid() > (1u << 22) || extra.owner_pid() > (1u << 22))
      return corrupt("manifest", where);
  }
  for (const auto& extra : manifest.packet_extras()) {
    TRY(check_name(extra.source(), cat("sender to socket ", extra.file_id())));
    if (extra.pid() > (1u << 22)) return corrupt("manifest", cat("sender to socket ", extra.file_id()));
  }
  return {};
}

}  // namespace

std::string unix_name(const pb::unix_sk_entry& usk) {
  const std::string& name = usk.name();
  return name.empty() || name[0] == '\0' ? name : std::string(name.c_str());
}

Result<void> check_unix_sockets(const std::map<uint32_t, pb::file_entry>& files, const pb::manifest_entry* manifest) {
  std::map<uint32_t, const pb::unix_sk_entry*> by_inode;
  for (const auto& [id, file] : files) {
    if (file.type() != pb::UNIXSK) continue;
    if (!file.has_usk()) return corrupt("files.img", cat("file ", id, " is no unix socket"));
    TRY(check_socket(file));
    if (!by_inode.emplace(file.usk().ino(), &file.usk()).second)
      return corrupt("files.img", cat("socket:[", file.usk().ino(), "] occurs twice"));
  }
  for (const auto& [inode, usk] : by_inode) {
    if (usk->peer() == 0 || (usk->uflags() & kUnixExternal)) continue;
    const auto peer = by_inode.find(usk->peer());
    if (peer == by_inode.end()) return corrupt("files.img", cat("the other end of socket:[", inode, "] is missing"));
    const auto& other = *peer->second;
    const bool outside = (other.uflags() & kUnixExternal) != 0;
    if (other.type() != usk->type() ||
        (usk->type() != SOCK_DGRAM && !outside && other.state() != kUnixListening && other.peer() != inode))
      return corrupt("files.img", cat("socket:[", inode, "] is not connected to socket:[", usk->peer(), "]"));
  }
  return manifest ? check_extras(files, *manifest) : Result<void>();
}

Result<void> check_external_unix(const std::map<uint32_t, pb::file_entry>& files, const Options& options) {
  for (const auto& [id, file] : files) {
    if (!file.has_usk() || !(file.usk().uflags() & kUnixExternal)) continue;
    const std::string key = cat("socket:[", file.usk().ino(), "]");
    if (!is_outside_peer(file.usk())) {
      if (inherited_fd(options, key) < 0)
        return fail(
            Error(Code::kBadOption, cat("the unix socket ", key, " of the images has its other end outside; give ",
                                        "one with --inherit-fd fd[N]:", key))
                .about(key));
      continue;
    }
    const std::string inode = cat(file.usk().ino());
    bool allowed = options.ext_unix_sk;
    for (const auto& e : options.externals) allowed |= e.kind == "unix";
    if (!allowed)
      return fail(
          Error(Code::kBadOption, cat("sockets of the images are connected to ", show_unix_name(unix_name(file.usk())),
                                      " outside the container; --ext-unix-sk connects them again"))
              .about(key));
  }
  return {};
}

namespace {

// Each datagram has come from somewhere.
Result<void> check_socket_extras(const image::Reader& images, const std::map<uint32_t, pb::file_entry>& files,
                                 const Packets& packets) {
  std::set<uint32_t> known;
  if (const auto* manifest = images.manifest())
    for (const auto& extra : manifest->socket_extras()) {
      const auto at = packets.find(extra.file_id());
      if (!known.insert(extra.file_id()).second)
        return corrupt("manifest", cat("file ", extra.file_id(), " occurs twice"));
      const bool datagrams = at != packets.end() && !files.at(at->first).has_usk();
      TRY(check_socket_extra(extra, datagrams ? at->second.size() : 0));
    }
  for (const auto& [id, list] : packets)
    if (!files.at(id).has_usk() && !known.contains(id)) return corrupt("manifest", cat("file ", id, " is missing"));
  return {};
}

Result<Packets> read_packets(const image::Reader& images, const std::map<uint32_t, pb::file_entry>& files) {
  const std::string name = "sk-queues.img";
  Packets out;
  if (!images.exists(name)) return out;
  auto reader = TRY(images.records(image::Kind::kSkQueues, name));
  pb::sk_packet_entry entry;
  while (TRY(reader.next(entry))) {
    const auto socket = files.find(entry.id_for());
    if (socket == files.end()) return corrupt(name, cat("socket ", entry.id_for(), " is not in files.img"));
    const auto& isk = socket->second.isk();
    const bool udp = isk.type() == SOCK_DGRAM && (isk.proto() == IPPROTO_UDP || isk.proto() == IPPROTO_UDPLITE);
    if (!socket->second.has_usk() && !udp)
      return fail(
          Error(Code::kUnsupportedFile,
                cat("socket ", entry.id_for(), " of the images has something queued, which cannot be restored yet"))
              .about(cat("file ", entry.id_for())));
    if (entry.length() > (udp ? kMaxDatagram : kMaxPacket) || (udp && entry.scm_size() > 0))
      return corrupt(name, cat("a packet of ", entry.length(), " bytes"));
    for (const auto& scm : entry.scm()) {
      if (scm.type() != SCM_RIGHTS || scm.rights_size() > kMaxRights || scm.rights_size() == 0)
        return corrupt(name, cat("what comes with a packet to socket ", entry.id_for()));
      for (const uint32_t id : scm.rights()) {
        const auto file = files.find(id);
        if (file == files.end()) return corrupt(name, cat("file ", id, " is not in files.img"));
        if (!kind_of(file->second.type()))
          return fail(Error(Code::kUnsupportedFile, cat("file ", id, " in the queue of socket ", entry.id_for(),
                                                        " is of a type that cannot be restored yet"))
                          .about(cat("file ", id)));
      }
    }
    if (entry.scm_size() > 1) return corrupt(name, cat("a packet to socket ", entry.id_for()));
    Packet packet;
    packet.entry = entry;
    packet.bytes = TRY(reader.payload(entry.length()));
    out[entry.id_for()].push_back(std::move(packet));
  }
  return out;
}

}  // namespace

Result<Packets> load_packets(const image::Reader& images, const std::map<uint32_t, pb::file_entry>& files) {
  auto packets = TRY(read_packets(images, files));
  TRY(check_socket_extras(images, files, packets));
  return packets;
}

}  // namespace stasis::files
