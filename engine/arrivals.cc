// SPDX-License-Identifier: Apache-2.0
#include "engine/arrivals.h"

#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include "engine/base/interrupt.h"
#include "engine/base/log.h"
#include "engine/files/collect.h"
#include "engine/files/inet_options.h"
#include "engine/files/net_lock.h"
#include "engine/namespaces/namespaces.h"

namespace stasis {
namespace {

void remove_table(int network, const std::string& table) {
  if (const auto inside = namespaces::Inside::join({{network, CLONE_NEWNET}}); inside)
    (void)files::remove_lock_table(table);
}

Result<std::vector<files::Candidate>> listening_sockets(const procfs::Procfs& proc, const tasks::FrozenTree& tree) {
  std::vector<files::Candidate> out;
  std::set<ino_t> seen;
  for (const auto& p : tree.processes()) {
    if (p.zombie) continue;
    for (auto& c : TRY(files::read_fds(proc, p.pid, p.pidfd.get()))) {
      if (!files::kInetSocket.matches(c) || seen.contains(c.st.st_ino)) continue;
      if (files::get_int(c.copy.get(), SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP) continue;
      if (TRY(files::tcp_state(c.copy.get(), c.name())) != files::kListen) continue;
      seen.insert(c.st.st_ino);
      out.push_back(std::move(c));
    }
  }
  return out;
}

// What the kernel alone is busy with at one of the ports, which would be lost: a handshake, or a last answer whose
// socket was closed behind it. Lines of /proc/PID/net/tcp: local address and port in hex, peer, state, ..., inode.
bool on_its_way(const std::string& table, const std::set<uint16_t>& ports) {
  for (const auto line : lines(table)) {
    const auto f = fields(line);
    if (f.size() < 10 || f[9] != "0") continue;
    const bool last_words = f[3] == "04" || f[3] == "09" || f[3] == "0B";  // FIN_WAIT1, LAST_ACK, CLOSING
    if (f[3] != "03" && !last_words) continue;
    const auto colon = f[1].rfind(':');
    const auto port = colon == f[1].npos ? std::nullopt : parse_int<uint16_t>(f[1].substr(colon + 1), 16);
    if (port && ports.contains(*port)) return true;
  }
  return false;
}

}  // namespace

Result<Arrivals> Arrivals::hold_off(const procfs::Procfs& proc, const tasks::FrozenTree& tree) {
  Arrivals out;
  out.root_ = tree.processes().front().pid;
  for (auto& c : TRY(listening_sockets(proc, tree))) {
    files::Address local;
    if (::getsockname(c.copy.get(), local.get(), &local.size) < 0) return fail_sys("getsockname", c.name());
    out.ports_.insert(local.port());
    out.inodes_.insert(c.st.st_ino);
    out.sockets_.push_back(std::move(c.copy));
  }
  if (out.ports_.empty()) return out;
  uint64_t number = 0;
  if (::getrandom(&number, sizeof(number), 0) < 0) return fail_sys("getrandom");
  const std::string table = files::lock_table_name(number);
  out.network_ = TRY(proc.open_file(out.root_, "ns/net", O_RDONLY));
  auto add = [&]() -> Result<void> {
    const auto inside = TRY(namespaces::Inside::join({{out.network_.get(), CLONE_NEWNET}}));
    return files::add_arrival_table(table, out.ports_);
  };
  // Before the table is there.
  auto janitor = TRY(Janitor::start([&] { remove_table(out.network_.get(), table); }));
  if (auto added = add(); added) {
    out.table_ = table;
    out.janitor_.emplace(std::move(janitor));
  } else {
    log::warning("new connections cannot be held off during the checkpoint: ", added.error().message(), ", ignoring");
  }
  return out;
}

Arrivals::~Arrivals() {
  if (!table_.empty() && network_.valid()) remove_table(network_.get(), table_);
}

bool Arrivals::queued() const {
  for (const auto& socket : sockets_) {
    tcp_info info{};
    socklen_t size = sizeof(info);
    // Of a listening socket this is the length of its queue.
    if (::getsockopt(socket.get(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_state == files::kListen &&
        info.tcpi_unacked > 0)
      return true;
  }
  return false;
}

bool Arrivals::pending(const procfs::Procfs& proc, int round) const {
  if (queued()) return true;
  if (round >= kNetworkRounds) return false;
  for (const char* table : {"net/tcp", "net/tcp6"})
    if (const auto text = proc.text(root_, table); !ports_.empty() && text && on_its_way(*text, ports_)) return true;
  return queued();
}

void Arrivals::await(const procfs::Procfs& proc, int round) const {
  auto now_ms = [] {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
  };
  // The tables of a large host are long: they are read less often than queues are looked at.
  constexpr timespec kPause{0, 1'000'000};
  constexpr int kLooksPerTable = 20;
  const auto end = now_ms() + kRoundMs;
  for (int look = 1; now_ms() < end; ++look) {
    ::nanosleep(&kPause, nullptr);
    if (!queued() && (look % kLooksPerTable == 0 || look == 2) && !pending(proc, round)) return;
  }
}

Result<bool> Arrivals::knows(const procfs::Procfs& proc, const tasks::FrozenTree& tree) const {
  for (const auto& c : TRY(listening_sockets(proc, tree)))
    if (!inodes_.contains(c.st.st_ino)) return false;
  return true;
}

Result<std::optional<Arrivals>> let_accept(const procfs::Procfs& proc, const Options& options,
                                           std::optional<tasks::FrozenTree>& tree, bool& ran_on) {
  std::optional<Arrivals> arrivals;
  if (options.tcp_skip_in_flight) return arrivals;
  arrivals.emplace(TRY(Arrivals::hold_off(proc, *tree)));
  // A paused container cannot be let run.
  if (tree->was_frozen().value_or(false)) return arrivals;
  for (int round = 0; round < Arrivals::kRounds && arrivals->pending(proc, round); ++round) {
    log::debug("connections wait to be accepted: the tasks run on for a moment");
    TRY(tree->resume(false));
    ran_on = true;
    arrivals->await(proc, round);
    TRY(check_interrupted());
    tree.emplace(TRY(tasks::FrozenTree::freeze(proc, options)));
    if (TRY(arrivals->knows(proc, *tree))) continue;
    arrivals.reset();
    arrivals.emplace(TRY(Arrivals::hold_off(proc, *tree)));
  }
  return arrivals;
}

}  // namespace stasis
