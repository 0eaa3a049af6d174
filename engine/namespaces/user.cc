// SPDX-License-Identifier: Apache-2.0
#include "engine/namespaces/user.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/io.h"
#include "engine/namespaces/namespaces.h"
#include "proto/namespaces.pb.h"

namespace stasis::namespaces {
namespace {

Error obstacle(pid_t pid, std::string what) {
  return Error(Code::kUnsupportedNamespace, cat("pid ", pid, " ", what)).about(cat("pid ", pid));
}

// NS_GET_USERNS or NS_GET_PARENT, ioctl_ns(2). An id of zeros where the kernel shows none.
procfs::NsId related(int ns_fd, unsigned long request) {
  const Fd fd(::ioctl(ns_fd, request));
  struct stat st {};
  if (!fd || ::fstat(fd.get(), &st) < 0) return {};
  return {st.st_dev, st.st_ino};
}

std::vector<uint32_t> list(const google::protobuf::RepeatedField<uint32_t>& groups) {
  return {groups.begin(), groups.end()};
}

}  // namespace

Result<procfs::UserMaps> look_user(const procfs::Procfs& proc, pid_t root, unsigned long flags,
                                   std::vector<Error>& obstacles) {
  procfs::UserMaps maps;
  maps.uid = TRY(procfs::parse_id_map(TRY(proc.text(root, "uid_map"))));
  maps.gid = TRY(procfs::parse_id_map(TRY(proc.text(root, "gid_map"))));
  maps.setgroups = trim(TRY(proc.text(root, "setgroups"))) == "allow";
  const auto user = TRY(proc.ns(root, "user")), own = TRY(proc.ns(::getpid(), "user"));
  const Fd user_fd = TRY(proc.open_file(root, "ns/user", O_RDONLY));
  if (::ioctl(user_fd.get(), NS_GET_OWNER_UID, &maps.owner) < 0) return fail_sys("ioctl(NS_GET_OWNER_UID)");
  if (!(related(user_fd.get(), NS_GET_PARENT) == own))
    obstacles.push_back(obstacle(root, "is in a nested user namespace"));
  else if (!procfs::is_valid(maps.uid) || !procfs::is_valid(maps.gid))
    obstacles.push_back(obstacle(root, "is in a user namespace without ids (uid_map, gid_map)"));
  for (const auto& kind : all_kinds()) {
    const bool needed = kind.flag == CLONE_NEWPID || kind.flag == CLONE_NEWNS;
    if (needed && !(flags & kind.flag))
      obstacles.push_back(
          obstacle(root, cat("is in a user namespace of its own, but in the host's ", kind.name, " namespace")));
    if (!(flags & kind.flag) || kind.flag == CLONE_NEWUSER) continue;
    const Fd fd = TRY(proc.open_file(root, cat("ns/", kind.name), O_RDONLY));
    if (!(related(fd.get(), NS_GET_USERNS) == user))
      obstacles.push_back(
          obstacle(root, cat("is in a user namespace of its own, and its ", kind.name, " namespace is another's")));
  }
  return maps;
}

Result<procfs::Status> inside_status(procfs::Status s, const procfs::UserMaps& maps) {
  auto translate = [](uint32_t& id, const procfs::IdMap& map, const char* what) -> Result<void> {
    const auto inner = map.inside(id);
    if (!inner)
      return fail(Code::kUnsupportedNamespace,
                  cat("the ", what, " ", id, " of the host is not in the container's user namespace"));
    id = *inner;
    return {};
  };
  for (auto& id : s.uid) TRY(translate(id, maps.uid, "user"));
  for (auto& id : s.gid) TRY(translate(id, maps.gid, "group"));
  for (auto& id : s.groups) TRY(translate(id, maps.gid, "group"));
  return s;
}

void find_foreign_ids(const procfs::Procfs& proc, pid_t root, pid_t pid, const procfs::UserMaps& maps,
                      std::vector<Error>& obstacles) {
  const auto tids = proc.threads(pid);
  const auto roots = proc.status(root);
  if (!tids || !roots) return;  // ended meanwhile
  for (const pid_t tid : *tids) {
    const auto status = proc.thread_status(pid, tid);
    if (!status || status->state == 'Z' || status->state == 'X') continue;
    if (const auto inner = inside_status(*status, maps); !inner)
      return obstacles.push_back(obstacle(pid, cat("has credentials of the host: ", inner.error().message())));
    if (!maps.setgroups && status->groups != roots->groups)
      return obstacles.push_back(obstacle(
          pid, "has other groups than the container's first process, and its user namespace denies setgroups(2)"));
  }
}

Result<void> dump_user(const procfs::UserMaps& maps, uint32_t id, image::Writer& images) {
  pb::userns_entry entry;
  for (auto [map, out] : {std::pair{&maps.uid, entry.mutable_uid_map()}, {&maps.gid, entry.mutable_gid_map()}})
    for (const auto& e : map->extents) {
      auto& extent = *out->Add();
      extent.set_first(e.first), extent.set_lower_first(e.lower), extent.set_count(e.count);
    }
  images.set_user_namespace(maps.setgroups, maps.owner);
  return images.put(image::Kind::kUserns, cat("userns-", id, ".img"), entry);
}

Result<procfs::UserMaps> load_user(const image::Reader& images, uint32_t id) {
  const std::string name = cat("userns-", id, ".img");
  const auto entry = TRY(images.read<pb::userns_entry>(image::Kind::kUserns, name));
  procfs::UserMaps maps;
  for (const auto& e : entry.uid_map()) maps.uid.extents.push_back({e.first(), e.lower_first(), e.count()});
  for (const auto& e : entry.gid_map()) maps.gid.extents.push_back({e.first(), e.lower_first(), e.count()});
  if (!procfs::is_valid(maps.uid) || !procfs::is_valid(maps.gid))
    return fail(Error(Code::kImageCorrupt, cat(name, ": ids that no user namespace can have")).about(name));
  if (images.manifest()) {
    maps.setgroups = !images.manifest()->setgroups_denied();
    maps.owner = images.manifest()->user_ns_owner();
  }
  return maps;
}

Result<void> write_maps(const procfs::Procfs& proc, pid_t pid, const procfs::UserMaps& maps) {
  // Denied before the groups are there, or never.
  if (!maps.setgroups) TRY(write_file_at(proc.fd(), cat(pid, "/setgroups"), "deny"));
  TRY_CTX(write_file_at(proc.fd(), cat(pid, "/gid_map"), maps.gid.text()), "groups of the user namespace");
  TRY_CTX(write_file_at(proc.fd(), cat(pid, "/uid_map"), maps.uid.text()), "users of the user namespace");
  return {};
}

Result<void> become_root(const procfs::UserMaps& maps) {
  if (maps.setgroups && ::setgroups(0, nullptr) < 0) return fail_sys("setgroups");
  const gid_t gid = maps.first_gid();
  const uid_t uid = maps.first_uid();
  if (::setresgid(gid, gid, gid) < 0) return fail_sys("setresgid", cat(gid));
  if (::setresuid(uid, uid, uid) < 0) return fail_sys("setresuid", cat(uid));
  // Changing ids gave /proc/self to the host's root.
  if (::prctl(PR_SET_DUMPABLE, 1) < 0) return fail_sys("prctl(PR_SET_DUMPABLE)");
  return {};
}

Result<BirthGroups> BirthGroups::take(const procfs::UserMaps& maps, const pb::creds_entry& creds) {
  BirthGroups scope;
  if (maps.setgroups) return scope;
  std::vector<gid_t> groups;
  for (const uint32_t group : list(creds.groups())) {
    const auto outer = maps.gid.outside(group);
    if (!outer) return fail(Code::kImageCorrupt, cat("group ", group, " is not in the user namespace of the images"));
    groups.push_back(*outer);
  }
  scope.mine_.resize(static_cast<size_t>(std::max(::getgroups(0, nullptr), 0)));
  if (::getgroups(static_cast<int>(scope.mine_.size()), scope.mine_.data()) < 0) return fail_sys("getgroups");
  if (::setgroups(groups.size(), groups.data()) < 0) return fail_sys("setgroups");
  scope.taken_ = true;
  return scope;
}

Result<AsOwner> AsOwner::take(const std::optional<procfs::UserMaps>& maps) {
  AsOwner scope;
  if (!maps || maps->owner == 0) return scope;
  if (::seteuid(maps->owner) < 0) return fail_sys("seteuid", cat(maps->owner));
  scope.taken_ = true;
  return scope;
}

AsOwner::~AsOwner() {
  if (!taken_) return;
  const int error = errno;
  if (::seteuid(0) < 0) ::_exit(1);
  errno = error;
}

BirthGroups::~BirthGroups() {
  // Going on with a container's groups would be wrong on the host.
  if (taken_ && ::setgroups(mine_.size(), mine_.data()) < 0) ::_exit(1);
}

}  // namespace stasis::namespaces
