// SPDX-License-Identifier: Apache-2.0
// unix(7) sockets again: first a socket under every number, then, when all files are open, what they are connected to,
// their names, their queues, and last what would have been in the way: limits, flags, ends that are closed.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "engine/base/io.h"
#include "engine/files/inet_options.h"
#include "engine/files/unix_actor.h"
#include "engine/files/unix_look.h"
#include "engine/files/unix_options.h"
#include "engine/files/unix_place.h"
#include "engine/files/unix_queue.h"
#include "engine/files/unix_socket.h"

namespace stasis::files {
namespace {

constexpr int kManyWaiting = 1 << 16;

struct Node {
  const pb::unix_sk_entry* usk = nullptr;
  const pb::unix_extra* extra = nullptr;
  const pb::socket_extra* options = nullptr;
  int fd = -1;           // under its number
  std::string name;      // as bound
  Node* peer = nullptr;  // that is there
  Node* mate = nullptr;  // datagrams: made by one socketpair(2)
  Fd closed_peer;        // held until the queue is filled
  UnixPlace place;       // if others are to reach it
  bool bound = false;
  bool dgram() const { return usk->type() == SOCK_DGRAM; }
  bool listens() const { return usk->state() == kUnixListening; }
  bool waits() const { return !dgram() && peer && peer->listens(); }
  bool peer_is_closed() const {
    if (!dgram() && !peer && usk->peer() != 0) return true;  // the client has given another for it
    if (extra && extra->has_peer_closed()) return extra->peer_closed();
    return !dgram() && usk->state() == kUnixEstablished && !peer;
  }
  std::string peer_name() const { return extra ? extra->peer_name() : std::string(); }
  // Who SO_PEERCRED names.
  UnixActor credentials() const {
    if (!extra || !extra->has_peer_uid()) return {};
    return {static_cast<pid_t>(extra->peer_pid()), extra->peer_uid(), extra->peer_gid()};
  }
  std::string text() const { return cat("socket:[", usk->ino(), "]"); }
};

Result<Fd> new_socket(uint32_t type) {
  Fd fd(::socket(AF_UNIX, static_cast<int>(type) | SOCK_CLOEXEC, 0));
  if (!fd) return fail_sys(Code::kRestoreFailed, "socket");
  TRY(widen_unix_buffers(fd.get()));
  return fd;
}

Result<std::pair<Fd, Fd>> new_pair(uint32_t type, const UnixActor& maker) {
  // Under numbers that are known here, whoever makes it.
  std::pair<Fd, Fd> out{TRY(new_socket(type)), TRY(new_socket(type))};
  TRY(act_as(maker, [&]() -> Result<void> {
    int ends[2];
    if (::socketpair(AF_UNIX, static_cast<int>(type) | SOCK_CLOEXEC, 0, ends) < 0)
      return fail_sys(Code::kRestoreFailed, "socketpair");
    const Fd first(ends[0]), second(ends[1]);
    if (::dup3(ends[0], out.first.get(), O_CLOEXEC) < 0 || ::dup3(ends[1], out.second.get(), O_CLOEXEC) < 0)
      return fail_sys("dup3", "socketpair");
    return {};
  }));
  TRY(widen_unix_buffers(out.first.get()));
  TRY(widen_unix_buffers(out.second.get()));
  return out;
}

// The backlog, and who listens: that is what clients see.
Result<void> listen_as(const UnixActor& who, int socket, int backlog, const std::string& name) {
  return act_as(who, [&]() -> Result<void> {
    if (::listen(socket, backlog) < 0) return fail_sys(Code::kRestoreFailed, "listen", show_unix_name(name));
    return {};
  });
}

class Connector {
 public:
  explicit Connector(RestoreEnv& env) : env_(env) {}

  Result<void> run() {
    collect();
    if (nodes_.empty()) return {};
    TRY(make_mates());
    TRY(bind_all());
    TRY(make_connections());
    TRY(fill_all());
    TRY(connect_datagrams());
    TRY(wait_at_listeners());
    for (auto& [inode, node] : nodes_) TRY_CTX(finish(node), node.text());
    for (const auto* place : apart_) unlink_unix(*place);
    if (::chdir("/") < 0) return fail_sys("chdir", "/");
    return {};
  }

 private:
  void collect() {
    std::map<uint32_t, const pb::unix_extra*> extras;
    std::map<uint32_t, const pb::socket_extra*> options;
    if (env_.manifest) {
      for (const auto& e : env_.manifest->unix_extras()) extras[e.file_id()] = &e;
      for (const auto& e : env_.manifest->socket_extras()) options[e.file_id()] = &e;
      for (const auto& e : env_.manifest->packet_extras()) packets_[{e.file_id(), e.index()}] = &e;
    }
    for (const auto& [id, file] : env_.files) {
      if (!file.has_usk()) continue;
      const auto& usk = file.usk();
      if (is_outside_peer(usk)) outside_[usk.ino()] = unix_name(usk);
      // What the client gives is as it is.
      if ((usk.uflags() & kUnixExternal) || inherited_fd(env_.options, cat("socket:[", usk.ino(), "]")) >= 0) continue;
      auto& node = nodes_[usk.ino()];
      node.usk = &usk, node.fd = env_.numbers.at(id), node.name = unix_name(usk);
      if (const auto at = extras.find(id); at != extras.end()) node.extra = at->second;
      if (const auto at = options.find(id); at != options.end()) node.options = at->second;
    }
    for (auto& [inode, node] : nodes_)
      if (const auto at = nodes_.find(node.usk->peer()); at != nodes_.end()) node.peer = &at->second;
  }

  Result<void> put(Node& node, const Fd& socket) {
    if (::dup3(socket.get(), node.fd, O_CLOEXEC) < 0) return fail_sys("dup3", node.text());
    return {};
  }

  // Datagram sockets without a name have got to each other by socketpair(2).
  Result<void> make_mates() {
    for (auto& [inode, node] : nodes_) {
      if (!node.dgram() || node.mate) continue;
      if (node.peer_is_closed() && node.peer_name().empty()) {
        auto [own, other] = TRY(new_pair(SOCK_DGRAM, node.credentials()));
        TRY(put(node, own));
        node.closed_peer = std::move(other);
        continue;
      }
      if (!node.peer || node.peer == &node) continue;
      if (!node.peer->name.empty() && !(node.name.empty() && node.peer->peer == &node)) continue;
      if (node.peer->mate)
        return fail(Code::kImageCorrupt, cat("files.img: ", node.text(), " and another one have the same end"));
      auto [own, other] = TRY(new_pair(SOCK_DGRAM, node.credentials()));
      TRY(put(node, own));
      TRY(put(*node.peer, other));
      node.mate = node.peer, node.peer->mate = &node;
    }
    // Before anything is queued: leaving an end empties the queue, and tells the other.
    for (auto& [inode, node] : nodes_) {
      if (!node.mate || node.peer == node.mate) continue;
      const sockaddr nobody{.sa_family = AF_UNSPEC, .sa_data = {}};
      if (::connect(node.fd, &nobody, sizeof(nobody)) < 0)
        return fail_sys(Code::kRestoreFailed, "disconnect", node.text());
      (void)get_int(node.mate->fd, SOL_SOCKET, SO_ERROR);
    }
    return {};
  }

  static bool needs_name(const Node& node) {
    return !node.name.empty() && (node.dgram() || node.usk->state() != kUnixEstablished);
  }
  static bool has_file(const Node& node) { return node.name[0] != '\0' && !node.usk->deleted(); }

  Result<void> bind_all() {
    for (auto& [inode, node] : nodes_)
      if (needs_name(node) && has_file(node)) TRY_CTX(check_unix_path(node.name, node.usk->name_dir()), node.text());
    for (auto& [inode, node] : nodes_) {
      if (!needs_name(node)) continue;
      if (has_file(node)) {
        node.place = TRY_CTX(bind_unix(node.fd, node.name, node.usk->name_dir()), node.text());
        TRY_CTX(set_file(node), node.text());
      } else {
        node.place = TRY_CTX(bind_unix_apart(node.fd, node.name), node.text());
        if (node.place.unlink_last) apart_.push_back(&node.place);
      }
      node.bound = true;
      if (!node.listens()) continue;
      TRY(listen_as(node.credentials(), node.fd, kManyWaiting, node.name));
      listeners_.try_emplace({node.usk->type(), node.name}, &node);
    }
    return {};
  }

  // In the directory that bind_unix() has left us in.
  static Result<void> set_file(const Node& node) {
    const char* path = node.name.c_str();
    if (node.usk->has_file_perms()) {
      const auto& perms = node.usk->file_perms();
      if (::lchown(path, perms.uid(), perms.gid()) < 0) return fail_sys(Code::kRestoreFailed, "chown", path);
      if (::chmod(path, perms.mode() & 07777) < 0) return fail_sys(Code::kRestoreFailed, "chmod", path);
    }
    if (node.extra && node.extra->has_mtime_sec()) {
      const timespec times[2] = {
          {0, UTIME_OMIT}, {static_cast<time_t>(node.extra->mtime_sec()), static_cast<long>(node.extra->mtime_nsec())}};
      if (::utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) < 0)
        return fail_sys(Code::kRestoreFailed, "utimensat", path);
    }
    return {};
  }

  // A listening socket of this name: the container's, or one that nobody else sees.
  struct Acceptor {
    Fd own;
    UnixPlace place;
  };
  Result<std::pair<int, const UnixPlace*>> acceptor(uint32_t type, const std::string& name, const UnixActor& who) {
    if (const auto at = listeners_.find({type, name}); at != listeners_.end())
      return std::pair<int, const UnixPlace*>(at->second->fd, &at->second->place);
    auto [at, fresh] = acceptors_.try_emplace({type, name});
    auto& acceptor = at->second;
    if (fresh) {
      acceptor.own = TRY(new_socket(type));
      acceptor.place = TRY(bind_unix_apart(acceptor.own.get(), name));
    }
    TRY(listen_as(who, acceptor.own.get(), kManyWaiting, name));
    return std::pair<int, const UnixPlace*>(acceptor.own.get(), &acceptor.place);
  }

  // One end of a connection: a socket of the images, or one that is closed.
  struct End {
    std::string name;
    UnixActor peer;  // who it sees at the other end
  };

  // Accepted sockets have the name of the listening one.
  Result<std::pair<Fd, Fd>> connected(uint32_t type, const End& a, const End& b) {
    if (a.name.empty() && b.name.empty()) return new_pair(type, a.peer);
    const bool a_listens = listeners_.contains({type, a.name}), b_listens = listeners_.contains({type, b.name});
    if (!a.name.empty() && (b.name.empty() || (a_listens && !b_listens))) {
      auto [second, first] = TRY(connect_to(type, a, b));
      return std::pair(std::move(first), std::move(second));
    }
    return connect_to(type, b, a);
  }
  // {client, server}
  Result<std::pair<Fd, Fd>> connect_to(uint32_t type, const End& server, const End& client) {
    std::pair<Fd, Fd> out;
    out.first = TRY(new_socket(type));
    if (!client.name.empty()) names_.push_back(TRY(bind_unix_apart(out.first.get(), client.name)));
    const auto [listening, place] = TRY(acceptor(type, server.name, client.peer));
    TRY(act_as(server.peer, [&] { return connect_unix(out.first.get(), *place); }));
    out.second = Fd(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
    if (!out.second) return fail_sys(Code::kRestoreFailed, "accept", show_unix_name(server.name));
    TRY(widen_unix_buffers(out.second.get()));
    return out;
  }

  Result<void> make_connections() {
    std::set<const Node*> done;
    for (auto& [inode, node] : nodes_) {
      if (node.dgram() || node.listens() || node.waits() || done.contains(&node)) continue;
      if (!node.peer && !node.peer_is_closed()) continue;
      const End here{node.name, node.credentials()};
      const End there = node.peer ? End{node.peer->name, node.peer->credentials()} : End{node.peer_name(), {}};
      auto [own, other] = TRY_CTX(connected(node.usk->type(), here, there), node.text());
      TRY(put(node, own));
      if (node.peer)
        TRY(put(*node.peer, other));
      else
        node.closed_peer = std::move(other);
      done.insert(&node), done.insert(node.peer);
    }
    acceptors_.clear();
    return {};
  }

  Result<void> fill_all() {
    if (!env_.packets) return {};
    for (auto& [inode, node] : nodes_) {
      const auto queue = env_.packets->find(node.usk->id());
      if (queue == env_.packets->end()) continue;
      for (size_t i = 0; i < queue->second.size(); ++i)
        TRY_CTX(fill(node, queue->second[i], static_cast<uint32_t>(i)), "queue of ", node.text());
    }
    senders_.clear();
    for (auto& [inode, node] : nodes_) {
      // Closing a socket that has something unread resets the connection.
      if (node.closed_peer && node.extra && node.extra->reset() && !node.dgram())
        TRY(send_unix({.socket = node.fd, .to = {}, .bytes = "x", .rights = {}, .who = {}}, node.text()));
      node.closed_peer.reset();
    }
    return {};
  }

  Result<void> fill(Node& node, const Packet& packet, uint32_t index) {
    UnixSend what;
    what.bytes = packet.bytes;
    for (const auto& scm : packet.entry.scm())
      for (const uint32_t id : scm.rights()) what.rights.push_back(env_.numbers.at(id));
    const auto at = packets_.find({node.usk->id(), index});
    const auto* extra = at == packets_.end() ? nullptr : at->second;
    TRY(choose_sender(node, extra ? extra->source() : std::string(), what));
    if (!extra || !extra->has_pid()) return send_unix(what, node.text());
    // Only the sender itself may say that it is he; of the ids it may say any.
    return act_as({static_cast<pid_t>(extra->pid()), {}, {}}, [&] {
      what.who = ucred{::getpid(), extra->uid(), extra->gid()};
      return send_unix(what, node.text());
    });
  }

  Result<void> choose_sender(Node& node, const std::string& source, UnixSend& what) {
    if (node.closed_peer) {
      what.socket = node.closed_peer.get();
    } else if (!node.dgram() && node.peer && !node.waits()) {
      what.socket = node.peer->fd;
    } else if (node.dgram() && node.mate && (source.empty() || source == node.mate->name)) {
      what.socket = node.mate->fd;
    } else if (node.dgram() && node.bound) {
      what.socket = TRY(sender_of(source));
      what.to = node.place.address;
      if (node.place.directory && ::fchdir(node.place.directory.get()) < 0) return fail_sys("fchdir");
    } else {
      return fail(Error(Code::kImageCorrupt, cat("sk-queues.img: nobody could have sent to ", node.text()))
                      .about("sk-queues.img"));
    }
    return {};
  }

  // A datagram socket of this name: the container's, or one for now.
  Result<int> sender_of(const std::string& name) {
    for (const auto& [inode, node] : nodes_)
      if (!name.empty() && node.dgram() && node.name == name && !node.mate) return node.fd;
    auto& sender = senders_[name];
    if (!sender) {
      sender = TRY(new_socket(SOCK_DGRAM));
      if (!name.empty()) names_.push_back(TRY(bind_unix_apart(sender.get(), name)));
    }
    return sender.get();
  }

  Result<void> connect_datagrams() {
    for (auto& [inode, node] : nodes_) {
      if (!node.dgram() || (node.mate && node.peer == node.mate)) continue;
      if (node.peer) {
        TRY_CTX(connect_unix(node.fd, node.peer->place), node.text());
      } else if (const auto outside = outside_.find(node.usk->peer()); outside != outside_.end()) {
        UnixPlace place;
        place.address = outside->second;
        TRY_CTX(connect_unix(node.fd, place), node.text());
      } else if (node.peer_is_closed() && !node.peer_name().empty()) {
        const Fd other = TRY(new_socket(SOCK_DGRAM));
        const auto place = TRY(bind_unix_apart(other.get(), node.peer_name()));
        TRY_CTX(connect_unix(node.fd, place), node.text());
      }
    }
    return {};
  }

  Result<void> wait_at_listeners() {
    std::vector<Node*> waiting;
    for (auto& [inode, node] : nodes_)
      if (node.waits()) waiting.push_back(&node);
    std::ranges::stable_sort(waiting, {}, [](const Node* node) { return node->extra ? node->extra->waits() : 0; });
    for (auto* node : waiting) {
      if (!node->name.empty()) names_.push_back(TRY_CTX(bind_unix_apart(node->fd, node->name), node->text()));
      UnixActor who;
      if (const auto* e = node->extra; e && e->has_owner_pid())
        who = {static_cast<pid_t>(e->owner_pid()), e->owner_uid(), {}};
      TRY_CTX(act_as(who, [&] { return connect_unix(node->fd, node->peer->place); }), node->text());
    }
    return {};
  }

  static Result<void> finish(Node& node) {
    const auto& usk = *node.usk;
    if (node.listens()) TRY(listen_as(node.credentials(), node.fd, static_cast<int>(usk.backlog()), node.name));
    if (usk.shutdown() != pb::NONE && ::shutdown(node.fd, static_cast<int>(usk.shutdown()) - 1) < 0 &&
        errno != ENOTCONN)
      return fail_sys(Code::kRestoreFailed, "shutdown");
    if (node.options && node.options->has_uid() && ::fchown(node.fd, node.options->uid(), static_cast<gid_t>(-1)) < 0)
      return fail_sys(Code::kRestoreFailed, "fchown");
    TRY(restore_unix_options(node.fd, usk, node.options));
    return set_flags(node.fd, usk.flags(), cat("file ", usk.id()));
  }

  RestoreEnv& env_;
  std::map<uint32_t, Node> nodes_;           // by inode
  std::map<uint32_t, std::string> outside_;  // names of ends outside, by inode
  std::map<std::pair<uint32_t, uint32_t>, const pb::packet_extra*> packets_;
  std::map<std::pair<uint32_t, std::string>, Node*> listeners_;  // by type and name
  std::map<std::pair<uint32_t, std::string>, Acceptor> acceptors_;
  std::map<std::string, Fd> senders_;
  std::vector<UnixPlace> names_;  // of ends that nobody is to find
  std::vector<const UnixPlace*> apart_;
};

}  // namespace

Result<Fd> restore_unix(const pb::file_entry& entry, RestoreEnv& env) {
  const auto& usk = entry.usk();
  if (const int given = inherited_fd(env.options, cat("socket:[", usk.ino(), "]")); given >= 0)
    return dup_at_least(given);
  return new_socket(usk.type());
}

Result<void> connect_unix_sockets(RestoreEnv& env) { return Connector(env).run(); }

const FileKind kUnixSocket = {.name = "unix socket",
                              .type = pb::UNIXSK,
                              .matches = matches_unix,
                              .check = check_unix,
                              .dump = dump_unix,
                              .restore = restore_unix,
                              .finish_dump = finish_unix,
                              .connect = connect_unix_sockets};

}  // namespace stasis::files
