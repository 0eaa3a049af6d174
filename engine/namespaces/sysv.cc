// SPDX-License-Identifier: Apache-2.0
#include "engine/namespaces/sysv.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/io.h"

namespace stasis::namespaces {

std::string sysv_name(const std::string& kind, uint32_t id) {
  return cat("System V ", kind == "shm" ? "segment " : kind == "sem" ? "semaphore set " : "message queue ", id);
}

Result<std::vector<uint32_t>> list_sysv(const std::string& kind) {
  std::vector<uint32_t> out;
  const auto text = read_file_at(AT_FDCWD, "/proc/sysvipc/" + kind);
  if (!text) return out;
  const auto rows = lines(*text);
  for (size_t i = 1; i < rows.size(); ++i) {
    const auto f = fields(rows[i]);
    const auto id = f.size() > 1 ? parse_int<uint32_t>(f[1]) : std::nullopt;
    if (!id) return fail(Code::kInternal, cat("/proc/sysvipc/", kind, ": cannot parse \"", rows[i], "\""));
    out.push_back(*id);
  }
  return out;
}

Result<void> describe_sysv(const struct ipc_perm& perm, const std::string& kind, uint32_t id,
                           const procfs::UserMaps* users, pb::ipc_desc_entry& desc) {
  auto inside = [](const procfs::IdMap* map, uint32_t outer) { return map ? map->inside(outer) : outer; };
  const auto *uids = users ? &users->uid : nullptr, *gids = users ? &users->gid : nullptr;
  const auto uid = inside(uids, perm.uid), creator_uid = inside(uids, perm.cuid);
  const auto gid = inside(gids, perm.gid), creator_gid = inside(gids, perm.cgid);
  if (!uid || !gid || !creator_uid || !creator_gid)
    return fail(Error(Code::kUnsupported, cat(sysv_name(kind, id),
                                              " belongs to a user of the host, whom the "
                                              "container's user namespace does not have"))
                    .about(sysv_name(kind, id)));
  desc.set_key(static_cast<uint32_t>(perm.__key));
  desc.set_uid(*uid), desc.set_gid(*gid), desc.set_cuid(*creator_uid), desc.set_cgid(*creator_gid);
  desc.set_mode(perm.mode);
  desc.set_id(id);
  return {};
}

Result<int> create_sysv(const std::string& kind, const pb::ipc_desc_entry& desc, bool keep_rights,
                        const std::function<int(int flags)>& make) {
  const std::string name = sysv_name(kind, desc.id());
  TRY(write_file_at(AT_FDCWD, cat("/proc/sys/kernel/", kind, "_next_id"), cat(desc.id())));
  // The creator is who calls; only the owner can be changed afterwards.
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  const bool other = (desc.cuid() != uid || desc.cgid() != gid) && !keep_rights;
  if (other && (::setegid(desc.cgid()) < 0 || ::seteuid(desc.cuid()) < 0))
    return fail_sys("become the creator of", name);
  const int got = make(static_cast<int>(IPC_CREAT | IPC_EXCL | (desc.mode() & kSysvPermissions)));
  const int error = errno;
  if (other) {
    if (::seteuid(uid) < 0 || ::setegid(gid) < 0) return fail_sys("seteuid back from the creator of", name);
    ::prctl(PR_SET_DUMPABLE, 1);  // which the change of ids has taken away
  }
  errno = error;
  if (got < 0) return fail_sys("create", name);
  if (static_cast<uint32_t>(got) != desc.id())
    return fail(Error(Code::kRestoreFailed, cat(name, " got the id ", got)).about(name));
  return got;
}

}  // namespace stasis::namespaces
