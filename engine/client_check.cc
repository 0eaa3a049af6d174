// SPDX-License-Identifier: Apache-2.0
#include "engine/client_check.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

namespace stasis {
namespace {

Error denied(std::string what, std::string object) {
  return Error(Code::kPermission, std::move(what)).about(std::move(object)).with_errno(EPERM);
}

template <class List>
bool has_groups(const List& list, const Client& client) {
  std::vector<uint32_t> sorted(list.begin(), list.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted == client.groups;
}

// What is not the client's about a thread; empty: nothing.
std::string foreign(const procfs::Status& s, const Client& client) {
  for (const uint32_t uid : s.uid)
    if (uid != client.uid) return cat("has the user id ", uid, ", the client ", client.uid);
  for (const uint32_t gid : s.gid)
    if (gid != client.gid) return cat("has the group id ", gid, ", the client ", client.gid);
  if (!has_groups(s.groups, client)) return "has other supplementary groups than the client";
  if (s.cap_permitted | s.cap_inheritable | s.cap_effective | s.cap_ambient) return "has capabilities";
  if (s.cap_bounding != client.cap_bounding) return "has another capability bounding set than the client";
  if (s.seccomp != 0) return "is under seccomp";
  return {};
}

uint64_t bits(const google::protobuf::RepeatedField<uint32_t>& words) {
  uint64_t out = 0;
  for (int i = 0; i < words.size(); ++i) out |= i < 2 ? uint64_t{words[i]} << (32 * i) : uint64_t{words[i] != 0} << 63;
  return out;
}

std::string foreign(const pb::creds_entry& c, const Client& client) {
  for (const uint32_t uid : {c.uid(), c.euid(), c.suid(), c.fsuid()})
    if (uid != client.uid) return cat("has the user id ", uid, ", the client ", client.uid);
  for (const uint32_t gid : {c.gid(), c.egid(), c.sgid(), c.fsgid()})
    if (gid != client.gid) return cat("has the group id ", gid, ", the client ", client.gid);
  if (!has_groups(c.groups(), client)) return "has other supplementary groups than the client";
  if (bits(c.cap_prm()) | bits(c.cap_eff()) | bits(c.cap_inh())) return "has capabilities";
  if (bits(c.cap_bnd()) != client.cap_bounding) return "has another capability bounding set than the client";
  if (c.secbits() != 0) return "has securebits";
  if (!c.lsm_profile().empty()) return "has a security label";
  return {};
}

}  // namespace

void check_owner(const procfs::Procfs& proc, pid_t pid, const Client& client, std::vector<Error>& obstacles) {
  const std::string object = cat("pid ", pid);
  const auto tids = proc.threads(pid);
  const auto leader = proc.status(pid);
  if (!tids || !leader) return;  // ended meanwhile
  const bool zombie = leader->state == 'Z' || leader->state == 'X';
  for (const pid_t tid : *tids) {
    const auto status = proc.thread_status(pid, tid);
    if (!status) continue;
    if (const auto what = foreign(*status, client); !what.empty() && !(zombie && tid == pid))
      return obstacles.push_back(denied(cat(object, " ", what), object));
  }
  if (zombie) {
    if (leader->uid[0] != client.uid) obstacles.push_back(denied(cat(object, " is another user's"), object));
    return;
  }
  // The kernel gives the files of a process that may not be looked into to root, proc(5).
  struct stat st {};
  if (fstatat(proc.fd(), cat(pid, "/environ").c_str(), &st, 0) == 0 && st.st_uid != client.uid)
    obstacles.push_back(denied(cat(object, " does not let its user look into it (PR_SET_DUMPABLE)"), object));
}

Result<void> check_client_namespaces(unsigned long namespaces) {
  if (namespaces == 0) return {};
  return fail(
      denied("tasks in namespaces of their own are checkpointed and restored for root only", "namespaces of the tree"));
}

Result<void> check_client_images(const tasks::Snapshot& snapshot, const Client& client) {
  TRY(check_client_namespaces(snapshot.namespaces));
  if (!snapshot.mounts.empty()) return fail(denied("the images hold mounts", "mounts"));
  for (const auto& task : snapshot.tasks) {
    if (task.zombie) continue;
    for (size_t i = 0; i < task.threads.size(); ++i) {
      const std::string object = cat("pid ", task.node.pid(), " of the images");
      const auto& thread = task.threads[i].thread_core();
      if (!thread.has_creds()) return fail(denied(cat(object, " has no credentials"), object));
      std::string what = foreign(thread.creds(), client);
      if (task.extras[i] && task.extras[i]->cap_ambient() != 0) what = "has capabilities";
      if (thread.has_seccomp_mode() && thread.seccomp_mode() != pb::disabled) what = "is under seccomp";
      if (!what.empty()) return fail(denied(cat(object, " ", what), object));
    }
  }
  return {};
}

}  // namespace stasis
