// SPDX-License-Identifier: Apache-2.0
#include "engine/files/unix_look.h"

#include <fcntl.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sched.h>
#include <sys/socket.h>

#include "engine/base/io.h"
#include "engine/base/strings.h"
#include "engine/kernel/netlink.h"
#include "engine/kernel/syscalls.h"

namespace stasis::files {
namespace {

// Asks in the namespace `ns`, and comes back; -1: here.
Result<kernel::Netlink> open_diag(int ns) {
  if (ns < 0) return kernel::Netlink::open(NETLINK_SOCK_DIAG);
  const Fd own = TRY(open_at(AT_FDCWD, "/proc/self/ns/net", O_RDONLY));
  TRY(kernel::setns(ns, CLONE_NEWNET, "network namespace of the container"));
  auto socket = kernel::Netlink::open(NETLINK_SOCK_DIAG);
  TRY(kernel::setns(own.get(), CLONE_NEWNET, "network namespace of the engine"));
  return socket;
}

std::string name_of(std::string_view raw) {
  if (!raw.empty() && raw[0] != '\0') raw = raw.substr(0, raw.find('\0'));
  return std::string(raw);
}

std::optional<UnixDiag> parse(std::string_view raw) {
  const auto message = kernel::parse_message<unix_diag_msg>(raw);
  if (!message || message->head.udiag_family != AF_UNIX) return std::nullopt;
  UnixDiag out;
  out.inode = message->head.udiag_ino;
  out.type = message->head.udiag_type;
  out.state = message->head.udiag_state;
  const auto& attributes = message->attributes;
  out.shutdown = kernel::attribute<uint8_t>(attributes, UNIX_DIAG_SHUTDOWN).value_or(0);
  out.peer = kernel::attribute<uint32_t>(attributes, UNIX_DIAG_PEER);
  if (const auto queue = kernel::attribute<unix_diag_rqlen>(attributes, UNIX_DIAG_RQLEN))
    out.in_queue = queue->udiag_rqueue, out.out_queue = queue->udiag_wqueue;
  if (const auto file = kernel::attribute<unix_diag_vfs>(attributes, UNIX_DIAG_VFS))
    out.file_device = file->udiag_vfs_dev, out.file_inode = file->udiag_vfs_ino;
  if (const auto name = attributes.find(UNIX_DIAG_NAME); name != attributes.end()) out.name = name_of(name->second);
  if (const auto list = attributes.find(UNIX_DIAG_ICONS); list != attributes.end()) {
    out.waiting.resize(list->second.size() / sizeof(uint32_t));
    std::memcpy(out.waiting.data(), list->second.data(), out.waiting.size() * sizeof(uint32_t));
  }
  return out;
}

}  // namespace

std::optional<uint32_t> socket_inode(std::string_view link) {
  if (!link.starts_with("socket:[") || !link.ends_with("]")) return std::nullopt;
  return parse_int<uint32_t>(link.substr(8, link.size() - 9));
}

std::string show_unix_name(std::string_view name) {
  std::string out(name);
  for (char& c : out)
    if (c == '\0') c = '@';
  return out;
}

Result<void> UnixLook::read_namespace(int ns) {
  auto diag = TRY(open_diag(ns));
  unix_diag_req request{};
  request.sdiag_family = AF_UNIX;
  request.udiag_states = ~0u;
  request.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN | UDIAG_SHOW_VFS;
  const kernel::NetlinkMessage message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, request);
  for (const auto& raw : TRY(diag.dump(message, "list of unix sockets"))) {
    auto socket = parse(raw);
    if (!socket) return fail(Code::kSystem, "the kernel's list of unix sockets cannot be read");
    for (size_t i = 0; i < socket->waiting.size(); ++i)
      waits_[socket->waiting[i]] = {socket->inode, static_cast<uint32_t>(i)};
    const uint32_t inode = socket->inode;
    sockets_[inode] = *std::move(socket);
  }
  waits_.erase(0);
  return {};
}

Result<void> UnixLook::find_inside(const DumpEnv& env) {
  std::vector<pid_t> pids;
  for (const auto& [pid, npid] : env.pids) {
    pids.push_back(pid);
    // A leader that has exited has no descriptors, its threads still have.
    const auto fds = env.proc.fds(pid);
    const auto threads = fds && !fds->empty() ? Result<std::vector<pid_t>>() : env.proc.threads(pid);
    if (threads) pids.insert(pids.end(), threads->begin(), threads->end());
  }
  for (const pid_t pid : pids) {
    const auto fds = env.proc.fds(pid);
    if (!fds) continue;  // ended meanwhile
    for (int fd : *fds) {
      const auto link = env.proc.link(pid, cat("fd/", fd));
      const auto inode = link ? socket_inode(*link) : std::nullopt;
      if (!inode || !inside_.insert(*inode).second || in_flight_) continue;
      if (const auto info = env.proc.fdinfo(pid, fd))
        for (const auto& line : info->rest)
          if (line.starts_with("scm_fds:") && trim(std::string_view(line).substr(8)) != "0") in_flight_ = true;
    }
  }
  return {};
}

Result<std::shared_ptr<const UnixLook>> UnixLook::take(const DumpEnv& env) {
  auto look = std::make_shared<UnixLook>();
  // The other end of a socket with a path may be in another network namespace: most likely in the engine's.
  TRY(look->read_namespace(-1));
  const auto own = TRY(env.proc.ns(::getpid(), "net")), container = TRY(env.proc.ns(env.root_pid, "net"));
  if (own.inode != container.inode || own.dev != container.dev)
    TRY(look->read_namespace(TRY(env.proc.open_file(env.root_pid, "ns/net", O_RDONLY)).get()));
  TRY(look->find_inside(env));
  return std::shared_ptr<const UnixLook>(std::move(look));
}

const UnixDiag* UnixLook::find(uint32_t inode) const {
  const auto at = sockets_.find(inode);
  return at == sockets_.end() ? nullptr : &at->second;
}

const UnixLook::Wait* UnixLook::waits(uint32_t inode) const {
  const auto at = waits_.find(inode);
  return at == waits_.end() ? nullptr : &at->second;
}

Result<const UnixLook*> unix_look(const DumpEnv& env) {
  if (!env.unix_look) env.unix_look = TRY(UnixLook::take(env));
  return env.unix_look.get();
}

}  // namespace stasis::files
