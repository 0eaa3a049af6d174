// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/peer.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "engine/base/strings.h"
#include "engine/kernel/syscalls.h"
#include "engine/procfs/procfs.h"

namespace stasis::rpc {
namespace {

Error denied(const Peer& peer, std::string_view what) {
  const std::string object = cat("pid ", peer.pid);
  return Error(Code::kPermission, cat("the client ", object, " ", what)).about(object).with_errno(EPERM);
}

Result<void> check_same_place(const procfs::Procfs& proc, const Peer& peer) {
  for (const char* kind : {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"}) {
    const auto own = proc.ns(getpid(), kind);
    if (!own) continue;  // this kernel has no such namespaces
    const auto theirs = TRY(proc.ns(peer.pid, kind));
    if (!(theirs == *own)) return fail(denied(peer, cat("is in another ", kind, " namespace than the service")));
  }
  struct stat own {
  }, theirs{};
  if (fstatat(proc.fd(), "self/root", &own, 0) != 0) return fail_sys("look at", "/proc/self/root");
  if (fstatat(proc.fd(), cat(peer.pid, "/root").c_str(), &theirs, 0) != 0)
    return fail_sys("look at", cat("/proc/", peer.pid, "/root"));
  if (own.st_dev != theirs.st_dev || own.st_ino != theirs.st_ino)
    return fail(denied(peer, "has another root directory than the service"));
  const auto label = proc.text(peer.pid, "attr/current"), own_label = proc.text(getpid(), "attr/current");
  if (label && own_label && *label != *own_label)
    return fail(denied(peer, cat("has the security label \"", trim(*label), "\", the service another")));
  return {};
}

Result<std::vector<uint32_t>> peer_groups(int socket) {
  constexpr int kPeerGroups = 59;  // SO_PEERGROUPS, 4.13
  std::vector<uint32_t> groups(64);
  while (true) {
    auto size = static_cast<socklen_t>(groups.size() * sizeof(uint32_t));
    if (getsockopt(socket, SOL_SOCKET, kPeerGroups, groups.data(), &size) == 0) {
      groups.resize(size / sizeof(uint32_t));
      std::sort(groups.begin(), groups.end());
      return groups;
    }
    if (errno != ERANGE || size / sizeof(uint32_t) <= groups.size())
      return fail_sys(Code::kKernelFeature, "ask for the client's groups");
    groups.resize(size / sizeof(uint32_t));
  }
}

// Hard limits only fall: what the images ask for then stays within what the client may have.
Result<void> take_limits(const std::vector<procfs::Limit>& limits) {
  for (size_t i = 0; i < limits.size() && i < RLIMIT_NLIMITS; ++i) {
    rlimit own{};
    const auto which = static_cast<__rlimit_resource>(i);
    if (getrlimit(which, &own) != 0) return fail_sys("getrlimit");
    own.rlim_max = std::min<rlim_t>(own.rlim_max, limits[i].hard);
    own.rlim_cur = std::min(own.rlim_cur, own.rlim_max);
    if (setrlimit(which, &own) != 0) return fail_sys("setrlimit");
  }
  return {};
}

Result<void> take_bounding_set(const Peer& peer, uint64_t wanted) {
  for (int cap = 0; cap < 64; ++cap) {
    const int have = prctl(PR_CAPBSET_READ, cap);
    if (have < 0) break;
    const bool keep = wanted >> cap & 1;
    if (keep && !have) return fail(denied(peer, cat("may get capability ", cap, ", the service may not")));
    if (!keep && have && prctl(PR_CAPBSET_DROP, cap) != 0) return fail_sys("prctl(PR_CAPBSET_DROP)");
  }
  return {};
}

Result<void> take_ids(const Client& client) {
  if (prctl(PR_SET_KEEPCAPS, 1) != 0) return fail_sys("prctl(PR_SET_KEEPCAPS)");
  if (setgroups(client.groups.size(), client.groups.data()) != 0) return fail_sys("setgroups");
  if (setresgid(client.gid, client.gid, client.gid) != 0) return fail_sys("setresgid");
  if (setresuid(client.uid, client.uid, client.uid) != 0) return fail_sys("setresuid");
  TRY(kernel::set_capabilities(uint64_t{1} << CAP_CHECKPOINT_RESTORE));
  if (prctl(PR_SET_KEEPCAPS, 0) != 0) return fail_sys("prctl(PR_SET_KEEPCAPS)");
  if (prctl(PR_GET_SECUREBITS) != 0) return fail(Code::kPermission, "the service runs with securebits of its own");
  TRY(kernel::new_session_keyring());
  // Our own files in /proc must be ours. The user still cannot trace us: we have a capability that he has not.
  if (prctl(PR_SET_DUMPABLE, 1) != 0) return fail_sys("prctl(PR_SET_DUMPABLE)");
  return {};
}

}  // namespace

Result<Peer> identify(int socket) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return fail_sys(Code::kProtocol, "ask who the client is");
  Peer peer{credentials.pid, credentials.uid, credentials.gid, {}};
  if (peer.pid <= 0) return fail(Code::kPermission, "the client is in a pid namespace that cannot be seen from here");
  if (auto fd = kernel::peer_pidfd(socket)) {
    peer.pidfd = std::move(*fd);
    return peer;
  }
  peer.pidfd = TRY(kernel::pidfd_open(peer.pid));
  const auto proc = TRY(procfs::Procfs::open());
  if (TRY(proc.status(peer.pid)).uid[1] != peer.uid) return fail(denied(peer, "is another user's by now"));
  return peer;
}

Result<void> check_alive(const Peer& peer) {
  if (kernel::pidfd_wait_exit(peer.pidfd.get(), 0))
    return fail(Error(Code::kProtocol, cat("the client pid ", peer.pid, " has ended")).about(cat("pid ", peer.pid)));
  return {};
}

Result<Client> become_client(int socket, const Peer& peer) {
  const auto proc = TRY(procfs::Procfs::open());
  const auto status = TRY(proc.status(peer.pid));
  const auto limits = TRY(proc.limits(peer.pid));
  TRY(check_same_place(proc, peer));
  TRY(check_alive(peer));
  if (status.seccomp != 0) return fail(denied(peer, "is under seccomp"));
  if (status.no_new_privs != 0) return fail(denied(peer, "has no_new_privs set"));
  Client client{peer.uid, peer.gid, TRY(peer_groups(socket)), status.cap_bounding};
  TRY(take_limits(limits));
  TRY(take_bounding_set(peer, client.cap_bounding));
  TRY(take_ids(client));
  return client;
}

}  // namespace stasis::rpc
