// SPDX-License-Identifier: Apache-2.0
// unix(7) sockets: what of them cannot be carried over, and their entries.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <linux/un.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/base/io.h"
#include "engine/files/inet_options.h"
#include "engine/files/unix_actor.h"
#include "engine/files/unix_look.h"
#include "engine/files/unix_options.h"
#include "engine/files/unix_socket.h"
#include "engine/kernel/syscalls.h"

namespace stasis::files {
namespace {

std::unexpected<Error> refuse(const Candidate& c, const std::string& what) {
  return fail(Error(Code::kUnsupportedFile, cat(c.name(), " is a unix socket ", what)).about(c.name()));
}

bool is_external(const Options& options, uint32_t inode) {
  const std::string key = cat(inode);
  return inode != 0 &&
         std::ranges::any_of(options.externals, [&](const auto& e) { return e.kind == "unix" && e.key == key; });
}

uint32_t inode_of(const Candidate& c) { return static_cast<uint32_t>(c.st.st_ino); }

// Of the other end, however it is: empty if it has none.
std::string peer_name(int socket) {
  sockaddr_un address{};
  socklen_t size = sizeof(address);
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) < 0 || size <= sizeof(sa_family_t)) return "";
  std::string name(address.sun_path, std::min<size_t>(size - sizeof(sa_family_t), sizeof(address.sun_path)));
  return name[0] == '\0' ? name : std::string(name.c_str());
}

short events_of(int socket) {
  pollfd item{socket, POLLIN | POLLPRI | POLLRDHUP, 0};
  return ::poll(&item, 1, 0) < 0 ? short{0} : item.revents;
}

// A socket belongs to the namespace its maker was in, and may have come from elsewhere.
Result<bool> is_of_container(const Candidate& c, const DumpEnv& env) {
  const Fd ns(::ioctl(c.copy.get(), SIOCGSKNS));
  if (!ns && errno == EPERM) return true;  // then the container has no namespace of its own
  if (!ns) return fail_sys("ioctl(SIOCGSKNS)", c.name());
  struct stat st {};
  if (::fstat(ns.get(), &st) < 0) return fail_sys("fstat", c.name());
  const auto own = TRY(env.proc.ns(env.root_pid, "net"));
  return own.inode == st.st_ino && own.dev == st.st_dev;
}

std::optional<struct stat> stat_inside(const DumpEnv& env, const std::string& path) {
  const auto fd = kernel::open_path_in_root(env.root_dir.get(), path);
  struct stat st {};
  if (!fd || ::fstat(fd->get(), &st) < 0) return std::nullopt;
  return st;
}

// How the container reaches a socket outside that has a name: by that, or by a mount of its file.
std::optional<std::string> outside_path(const DumpEnv& env, const std::string& name, const UnixDiag* diag) {
  if (name.empty()) return std::nullopt;
  if (name[0] == '\0') return name;
  auto leads_there = [&](const std::string& path) {
    const auto st = stat_inside(env, path);
    if (!st || !S_ISSOCK(st->st_mode)) return false;
    return !diag || !diag->file_inode ||
           (diag->file_inode == static_cast<uint32_t>(st->st_ino) &&
            diag->file_device == (major(st->st_dev) << 20 | minor(st->st_dev)));
  };
  if (name[0] == '/' && leads_there(name)) return name;
  if (env.mounts)
    for (const auto& mount : env.mounts->mounts)
      if (leads_there(mount.mountpoint)) return mount.mountpoint;
  return std::nullopt;
}

std::string describe(uint32_t inode, const std::string& name) {
  return cat("socket:[", inode, "]", name.empty() ? std::string() : cat(" at ", show_unix_name(name)));
}

// Its other end is nobody's of the container.
Result<void> check_outside(const Candidate& c, const DumpEnv& env, const UnixLook& look, const UnixDiag& diag) {
  const uint32_t peer = *diag.peer;
  if (is_external(env.options, diag.inode) || is_external(env.options, peer)) return {};
  const std::string name = peer_name(c.copy.get()), there = describe(peer, name);
  if (diag.type != SOCK_DGRAM || name.empty())
    return refuse(c, cat("connected to ", there, " outside the container; --external unix[", diag.inode,
                         "] allows it, and --inherit-fd socket:[", diag.inode, "] gives another on restore"));
  if (!env.options.ext_unix_sk)
    return refuse(c, cat("connected to ", there, " outside the container; --ext-unix-sk allows it"));
  if (!outside_path(env, name, look.find(peer)))
    return refuse(c, cat("connected to ", there, " outside the container, which has no name inside"));
  return {};
}

// Nothing shows what the other ends have sent before they are accepted.
Result<void> check_waiting(const Candidate& c, const UnixLook& look, const UnixDiag& diag) {
  for (const uint32_t end : diag.waiting) {
    if (end == 0)
      return refuse(c, cat("listening at ", show_unix_name(diag.name),
                           ", with a connection not yet accepted whose other end is closed already"));
    if (!look.is_inside(end) && !look.in_flight())
      return refuse(c, cat("listening at ", show_unix_name(diag.name), ", with a connection not yet accepted from ",
                           describe(end, ""), " outside the container"));
  }
  const auto* wait = look.waits(diag.inode);
  if (!wait) return {};
  if (!look.is_inside(wait->listener) && !look.in_flight())
    return refuse(c, cat("waiting to be accepted by ", describe(wait->listener, peer_name(c.copy.get())),
                         " outside the container"));
  int sent = 0;
  if (::ioctl(c.copy.get(), SIOCOUTQ, &sent) < 0) return fail_sys("ioctl(SIOCOUTQ)", c.name());
  if (sent > 0)
    return refuse(c, cat("that has sent data to ", describe(wait->listener, peer_name(c.copy.get())),
                         ", which has not accepted the connection: nobody can see what it was"));
  return {};
}

// What bind(2) has made.
struct SocketFile {
  bool deleted = false;
  std::string directory;  // of a relative name
  struct stat st {};
  int mnt_id = -1;
};

// Where the file is that a name stands for; deleted, if it has none any more.
Result<SocketFile> file_of(const Candidate& c, const DumpEnv& env, const UnixDiag& diag) {
  SocketFile out;
  const Fd file(::ioctl(c.copy.get(), SIOCUNIXFILE));
  if (!file && errno != EPERM && errno != ENOENT) return fail_sys("ioctl(SIOCUNIXFILE)", c.name());
  std::string link;
  if (file) {
    if (::fstat(file.get(), &out.st) < 0) return fail_sys("fstat", c.name());
    out.deleted = out.st.st_nlink == 0;
    link = TRY(env.proc.link(::getpid(), cat("fd/", file.get())));
    out.mnt_id = TRY(env.proc.fdinfo(::getpid(), file.get())).mnt_id;
  }
  if (out.deleted) return out;
  auto is_here = [&](const std::string& path) {
    const auto st = stat_inside(env, path);
    if (!st) return false;
    if (!file) out.st = *st;
    return file ? st->st_dev == out.st.st_dev && st->st_ino == out.st.st_ino
                : static_cast<uint32_t>(st->st_ino) == diag.file_inode;
  };
  if (diag.name[0] == '/') {
    if (is_here(diag.name)) return out;
  } else if (link.ends_with(cat("/", diag.name))) {
    out.directory = link.substr(0, link.size() - diag.name.size() - 1);
    if (out.directory.empty()) out.directory = "/";
    if (is_here(link)) return out;
  } else if (const auto cwd = env.proc.link(c.pid, "cwd"); cwd && is_here(cat(*cwd, "/", diag.name))) {
    out.directory = *cwd;
    return out;
  }
  // A connection does not need its file.
  if (diag.type != SOCK_DGRAM && diag.state == kUnixEstablished) {
    out.deleted = true;
    return out;
  }
  return refuse(c,
                cat("bound to ", diag.name, ", whose file is ", link.empty() ? "not there any more" : "now " + link));
}

Result<void> dump_name(const Candidate& c, const DumpEnv& env, const UnixDiag& diag, pb::unix_sk_entry& usk,
                       pb::unix_extra& extra) {
  if (diag.name.empty() || diag.name[0] == '\0') {
    usk.set_name(diag.name);
    return {};
  }
  usk.set_name(std::string(diag.name.c_str(), diag.name.size() + 1));
  const auto file = TRY(file_of(c, env, diag));
  if (!file.directory.empty()) usk.set_name_dir(file.directory);
  if (file.deleted) {
    usk.set_deleted(true);
    return {};
  }
  if (env.mounts && env.mounts->find(file.mnt_id)) usk.set_mnt_id(file.mnt_id);
  Candidate owned;
  owned.pid = c.pid, owned.fd = c.fd, owned.link = diag.name, owned.st = file.st;
  const auto owner = TRY(owner_of(owned, env));
  auto& perms = *usk.mutable_file_perms();
  perms.set_mode(file.st.st_mode & 07777), perms.set_uid(owner.uid), perms.set_gid(owner.gid);
  extra.set_mtime_sec(static_cast<uint64_t>(file.st.st_mtim.tv_sec));
  extra.set_mtime_nsec(static_cast<uint32_t>(file.st.st_mtim.tv_nsec));
  return {};
}

// SO_PEERCRED, if the container has names for it.
Result<void> dump_peer_credentials(const Candidate& c, const DumpEnv& env, pb::unix_extra& extra) {
  auto read = [&] {
    ucred who{};
    socklen_t size = sizeof(who);
    return ::getsockopt(c.copy.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) < 0 ? ucred{} : who;
  };
  const ucred who = read();
  if (who.pid <= 0) return {};
  const auto uid = env.users ? env.users->uid.inside(who.uid) : who.uid;
  const auto gid = env.users ? env.users->gid.inside(who.gid) : who.gid;
  const auto pid = TRY(pid_inside(env, who.pid, [&] { return read().pid; }));
  if (!uid || !gid) return {};
  if (pid) extra.set_peer_pid(static_cast<uint32_t>(*pid));
  extra.set_peer_uid(*uid), extra.set_peer_gid(*gid);
  return {};
}

// linux/unix_diag.h has the bits of include/net/sock.h: RCV_SHUTDOWN 1, SEND_SHUTDOWN 2.
pb::sk_shutdown shutdown_of(const UnixDiag& diag) { return static_cast<pb::sk_shutdown>(diag.shutdown & 3); }

}  // namespace

Result<std::optional<pid_t>> pid_inside(const DumpEnv& env, pid_t pid, const std::function<pid_t()>& ask) {
  if (const auto at = env.pids.find(pid); at != env.pids.end()) return std::optional(at->second);
  const auto own = TRY(env.proc.ns(::getpid(), "pid")), container = TRY(env.proc.ns(env.root_pid, "pid"));
  if (own.inode == container.inode && own.dev == container.dev) return std::optional(pid);
  auto& ended = TRY(unix_look(env))->ended();
  auto at = ended.find(pid);
  if (at == ended.end()) {
    const Fd ns = TRY(env.proc.open_file(env.root_pid, "ns/pid", O_RDONLY));
    at = ended.emplace(pid, TRY(ask_inside(ns.get(), ask))).first;
  }
  return at->second > 0 ? std::optional(at->second) : std::nullopt;
}

bool matches_unix(const Candidate& c) {
  return S_ISSOCK(c.st.st_mode) && !(c.info.flags & O_PATH) && get_int(c.copy.get(), SOL_SOCKET, SO_DOMAIN) == AF_UNIX;
}

Result<void> check_unix(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  TRY(owner_of(c, env));
  if (is_external(env.options, inode_of(c))) return {};
  if (!TRY(is_of_container(c, env)))
    return refuse(c, cat("of another network namespace; --external unix[", inode_of(c), "] allows it"));
  sock_filter none{};
  socklen_t size = 0;
  if (::getsockopt(c.copy.get(), SOL_SOCKET, SO_GET_FILTER, &none, &size) < 0 ? errno == EACCES : size > 0)
    return refuse(c, "with a packet filter");
  if (events_of(c.copy.get()) & POLLPRI) return refuse(c, "with out-of-band data");
  const auto* look = TRY(unix_look(env));
  const auto* diag = look->find(inode_of(c));
  if (!diag) return refuse(c, "that the kernel does not list");
  TRY(check_waiting(c, *look, *diag));
  if (diag->peer.value_or(0) != 0 && !look->is_inside(*diag->peer) && !look->in_flight())
    TRY(check_outside(c, env, *look, *diag));
  if (!diag->name.empty() && diag->name[0] != '\0') TRY(file_of(c, env, *diag));
  return {};
}

Result<void> dump_unix(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  const int socket = c.copy.get();
  const auto* look = TRY(unix_look(env));
  const auto* diag = look->find(inode_of(c));
  auto& usk = *entry.mutable_usk();
  pb::unix_extra extra;
  entry.set_type(pb::UNIXSK);
  usk.set_id(entry.id()), extra.set_file_id(entry.id());
  usk.set_ino(inode_of(c));
  usk.set_type(static_cast<uint32_t>(get_int(socket, SOL_SOCKET, SO_TYPE).value_or(0)));
  usk.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  usk.set_uflags(0), usk.set_backlog(0), usk.set_peer(0), usk.set_state(kUnixClosed), usk.set_name("");
  usk.set_ns_id(env.net_ns_id);
  set_no_owner(usk.mutable_fown());
  TRY(dump_unix_options(c, env, usk, out));
  if (is_external(env.options, usk.ino()) || !diag) {
    // Whatever it is, the client gives another.
    usk.set_uflags(kUnixExternal);
    return {};
  }
  usk.set_state(diag->state);
  if (diag->state == kUnixListening) usk.set_backlog(diag->out_queue);
  if (diag->shutdown) usk.set_shutdown(shutdown_of(*diag));
  TRY(dump_name(c, env, *diag, usk, extra));
  TRY(dump_peer_credentials(c, env, extra));
  if (const auto* wait = look->waits(usk.ino())) {
    usk.set_peer(wait->listener);
    extra.set_waits(wait->place);
    if (const auto pid = env.pids.find(c.pid); pid != env.pids.end())
      extra.set_owner_pid(static_cast<uint32_t>(pid->second)), extra.set_owner_uid(TRY(owner_of(c, env)).uid);
  } else if (diag->peer) {
    usk.set_peer(*diag->peer);
    extra.set_peer_closed(*diag->peer == 0);
    if (*diag->peer == 0) {
      extra.set_peer_name(peer_name(socket));
      extra.set_reset((events_of(socket) & POLLERR) != 0);
    }
  }
  out.images->add_unix_extra(extra);
  return {};
}

Result<std::optional<pb::file_entry>> outside_peer(const Candidate& c, const DumpEnv& env, pb::unix_sk_entry& usk) {
  const auto* look = TRY(unix_look(env));
  const auto* diag = look->find(usk.ino());
  if (!diag || !diag->peer) return fail(Code::kInternal, cat(c.name(), " has no other end"));
  TRY(check_outside(c, env, *look, *diag));
  const auto path = outside_path(env, peer_name(c.copy.get()), look->find(*diag->peer));
  if (usk.type() != SOCK_DGRAM || !path) {
    usk.set_uflags(usk.uflags() | kUnixExternal);
    return std::optional<pb::file_entry>();
  }
  pb::file_entry entry;
  entry.set_type(pb::UNIXSK);
  auto& peer = *entry.mutable_usk();
  peer.set_ino(*diag->peer), peer.set_type(SOCK_DGRAM), peer.set_state(kUnixListening), peer.set_flags(O_RDWR);
  peer.set_uflags(kUnixExternal), peer.set_backlog(0), peer.set_peer(0);
  set_no_owner(peer.mutable_fown());
  *peer.mutable_opts() = usk.opts();
  peer.set_name((*path)[0] == '\0' ? *path : std::string(path->c_str(), path->size() + 1));
  return std::optional(std::move(entry));
}

}  // namespace stasis::files
