// SPDX-License-Identifier: Apache-2.0
// When all descriptors of all tasks are known: what is queued in unix sockets, the files that are on their way in it,
// and whether every socket's other end is there.
#include <sys/socket.h>
#include <unistd.h>

#include <set>

#include "engine/base/io.h"
#include "engine/files/unix_look.h"
#include "engine/files/unix_queue.h"
#include "engine/files/unix_socket.h"
#include "engine/kernel/syscalls.h"

namespace stasis::files {
namespace {

class Queues {
 public:
  Queues(const DumpEnv& env, DumpOutput& out) : env_(env), out_(out) {
    for (const auto& d : out.descriptors) where_.try_emplace(d.id, std::pair(d.pid, d.fd));
  }

  // Files that come out of queues are appended to out.files, and are looked into in their turn.
  Result<void> dump_all() {
    for (size_t i = 0; i < out_.files.size(); ++i) {
      if (!out_.files[i].has_usk()) continue;
      const auto usk = out_.files[i].usk();
      inodes_.insert(usk.ino());
      if (usk.state() == kUnixListening || (usk.uflags() & kUnixExternal)) continue;
      TRY(dump_queue(usk));
    }
    return {};
  }

  Result<void> check_ends() {
    for (size_t i = 0; i < out_.files.size(); ++i) {
      if (!out_.files[i].has_usk()) continue;
      auto usk = out_.files[i].usk();
      if (usk.peer() == 0 || (usk.uflags() & kUnixExternal) || inodes_.contains(usk.peer())) continue;
      auto peer = TRY(outside_peer(TRY(candidate(usk)), env_, usk));
      *out_.files[i].mutable_usk() = usk;
      if (!peer) continue;
      inodes_.insert(usk.peer());
      peer->set_id(out_.next_file_id++);
      peer->mutable_usk()->set_id(peer->id());
      out_.files.push_back(*std::move(peer));
    }
    return check_listeners();
  }

 private:
  Result<void> check_listeners() {
    const auto* look = TRY(unix_look(env_));
    for (const auto& file : out_.files) {
      const auto* diag = file.has_usk() ? look->find(file.usk().ino()) : nullptr;
      if (!diag || (file.usk().uflags() & kUnixExternal)) continue;
      for (const uint32_t end : diag->waiting)
        if (!inodes_.contains(end))
          return fail(Error(Code::kUnsupportedFile,
                            cat("socket:[", diag->inode, "] listening at ", show_unix_name(diag->name),
                                " has a connection not yet accepted from socket:[", end, "] outside the container"))
                          .about(cat("socket:[", diag->inode, "]")));
    }
    return {};
  }

  Result<Fd> copy_of(uint32_t id) {
    const auto at = where_.find(id);
    if (at == where_.end()) return fail(Code::kInternal, cat("file ", id, " is nowhere open"));
    const auto [pid, fd] = at->second;
    if (pid == ::getpid()) return dup_at_least(fd);
    auto& pidfd = pidfds_[pid];
    if (!pidfd) pidfd = TRY(kernel::pidfd_open(pid));
    return kernel::pidfd_getfd(pidfd.get(), fd);
  }

  Result<Candidate> candidate(const pb::unix_sk_entry& usk) {
    Candidate c;
    c.copy = TRY(copy_of(usk.id()));
    std::tie(c.pid, c.fd) = where_.at(usk.id());
    c.link = cat("socket:[", usk.ino(), "]");
    if (::fstat(c.copy.get(), &c.st) < 0) return fail_sys("fstat", c.name());
    return c;
  }

  Result<void> dump_queue(const pb::unix_sk_entry& usk) {
    if (const auto* diag = TRY(unix_look(env_))->find(usk.ino());
        diag && diag->type == SOCK_STREAM && diag->in_queue == 0)
      return {};
    const Fd copy = TRY(copy_of(usk.id()));
    const std::string name = cat("socket:[", usk.ino(), "]");
    auto messages = TRY(peek_unix_queue(copy.get(), static_cast<int>(usk.type()), name));
    if (messages.empty()) return {};
    auto& packets = out_.packets[usk.id()];
    for (auto& message : messages)
      TRY_CTX(dump_message(usk.id(), copy.get(), message, packets), "in the queue of ", name);
    return {};
  }

  Result<void> dump_message(uint32_t id, int socket, UnixMessage& message, std::vector<Packet>& packets) {
    Packet packet;
    packet.entry.set_id_for(id);
    packet.entry.set_length(static_cast<uint32_t>(message.bytes.size()));
    if (!message.rights.empty()) {
      auto& scm = *packet.entry.add_scm();
      scm.set_type(SCM_RIGHTS);
      for (auto& fd : message.rights) scm.add_rights(TRY(dump_right(std::move(fd))));
    }
    pb::packet_extra extra;
    extra.set_file_id(id);
    extra.set_index(static_cast<uint32_t>(packets.size()));
    if (!message.source.empty()) extra.set_source(message.source);
    if (message.who) {
      const auto& who = *message.who;
      const auto pid = TRY(pid_inside(env_, who.pid, [&] { return peek_unix_sender(socket, message); }));
      const auto uid = env_.users ? env_.users->uid.inside(who.uid) : who.uid;
      const auto gid = env_.users ? env_.users->gid.inside(who.gid) : who.gid;
      if (pid && uid && gid) extra.set_pid(static_cast<uint32_t>(*pid)), extra.set_uid(*uid), extra.set_gid(*gid);
    }
    if (extra.has_source() || extra.has_pid()) out_.images->add_packet_extra(extra);
    packet.bytes = std::move(message.bytes);
    packets.push_back(std::move(packet));
    return {};
  }

  Result<uint32_t> dump_right(Fd fd) {
    Candidate c;
    c.pid = ::getpid();
    c.copy = std::move(fd);
    c.fd = c.copy.get();
    if (::fstat(c.copy.get(), &c.st) < 0) return fail_sys("fstat", "a file in flight");
    c.info = TRY(env_.proc.fdinfo(c.pid, c.fd));
    c.link = TRY(env_.proc.link(c.pid, cat("fd/", c.fd)));
    const size_t before = out_.files.size();
    const uint32_t id = TRY(out_.id_of(c));
    if (out_.files.size() == before) return id;  // some task has it open, or it was met before
    where_[id] = {c.pid, c.fd};
    out_.in_flight.push_back(std::move(c.copy));
    return id;
  }

  const DumpEnv& env_;
  DumpOutput& out_;
  std::map<uint32_t, std::pair<pid_t, int>> where_;  // file id -> a descriptor of it
  std::map<pid_t, Fd> pidfds_;
  std::set<uint32_t> inodes_;  // of all sockets in the images
};

}  // namespace

Result<void> finish_unix(const DumpEnv& env, DumpOutput& out) {
  Queues queues(env, out);
  TRY(queues.dump_all());
  return queues.check_ends();
}

}  // namespace stasis::files
