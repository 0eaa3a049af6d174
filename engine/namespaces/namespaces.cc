// SPDX-License-Identifier: Apache-2.0
#include "engine/namespaces/namespaces.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <unistd.h>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"
#include "engine/namespaces/net.h"
#include "engine/namespaces/posix_queues.h"
#include "engine/namespaces/sysv.h"
#include "engine/namespaces/time.h"
#include "engine/namespaces/user.h"

namespace stasis::namespaces {
namespace {

using Ids = pb::task_kobj_ids_entry;

struct IdField {
  unsigned long flag;
  uint32_t number;  // of the engine's own; the container's is number + 10
  void (Ids::*set)(uint32_t);
  uint32_t (Ids::*get)() const;
};
const IdField kIds[] = {
    {CLONE_NEWPID, 1, &Ids::set_pid_ns_id, &Ids::pid_ns_id},
    {CLONE_NEWNET, 2, &Ids::set_net_ns_id, &Ids::net_ns_id},
    {CLONE_NEWIPC, 3, &Ids::set_ipc_ns_id, &Ids::ipc_ns_id},
    {CLONE_NEWUTS, 4, &Ids::set_uts_ns_id, &Ids::uts_ns_id},
    {CLONE_NEWNS, 5, &Ids::set_mnt_ns_id, &Ids::mnt_ns_id},
    {CLONE_NEWUSER, 6, &Ids::set_user_ns_id, &Ids::user_ns_id},
    {CLONE_NEWCGROUP, 7, &Ids::set_cgroup_ns_id, &Ids::cgroup_ns_id},
    {CLONE_NEWTIME, 8, &Ids::set_time_ns_id, &Ids::time_ns_id},
};

std::string external_name(const Options& options, const char* kind, uint64_t inode) {
  std::string name;
  for (const auto& e : options.externals)  // later entries win
    if (e.kind == kind && e.key == std::to_string(inode)) name = e.value;
  return name;
}

}  // namespace

const std::vector<Kind>& all_kinds() {
  static const std::vector<Kind> table = {{"pid", CLONE_NEWPID},   {"mnt", CLONE_NEWNS},   {"uts", CLONE_NEWUTS},
                                          {"ipc", CLONE_NEWIPC},   {"net", CLONE_NEWNET},  {"cgroup", CLONE_NEWCGROUP},
                                          {"user", CLONE_NEWUSER}, {"time", CLONE_NEWTIME}};
  return table;
}

Result<Owned> look(const procfs::Procfs& proc, pid_t root, const std::vector<pid_t>& others, const Options& options,
                   std::vector<Error>& obstacles) {
  Owned owned;
  for (const auto& kind : all_kinds()) {
    const auto own = proc.ns(::getpid(), kind.name);
    if (!own && own.error().code() == Code::kNotFound) continue;  // a kernel without this kind
    const auto of_root = TRY(proc.ns(root, kind.name));
    if (!(*own == of_root)) owned.flags |= kind.flag;
    if (kind.flag == CLONE_NEWNET) owned.net = of_root;
    for (pid_t pid : others) {
      const auto ns = proc.ns(pid, kind.name);
      if (ns && !(*ns == of_root))
        obstacles.push_back(
            Error(Code::kUnsupportedNamespace, cat("pid ", pid, " is in a nested ", kind.name, " namespace"))
                .about(cat("pid ", pid)));
    }
  }
  find_nested_time(proc, root, obstacles);
  for (pid_t pid : others) find_nested_time(proc, pid, obstacles);
  const auto children_ns = proc.ns(root, "pid_for_children"), pid_ns = proc.ns(root, "pid");
  if (children_ns && pid_ns && !(*children_ns == *pid_ns))
    obstacles.push_back(
        Error(Code::kUnsupportedNamespace, cat("pid ", root, " makes its children in another pid namespace"))
            .about(cat("pid ", root)));
  owned.external_net = external_name(options, "net", owned.net.inode);
  if (!(owned.flags & CLONE_NEWUSER)) return owned;
  unsigned long inner = owned.flags;
  if (!owned.external_net.empty()) inner &= ~static_cast<unsigned long>(CLONE_NEWNET);
  owned.users = TRY(look_user(proc, root, inner, obstacles));
  if (!obstacles.empty()) return owned;
  find_foreign_ids(proc, root, root, *owned.users, obstacles);
  for (pid_t pid : others) find_foreign_ids(proc, root, pid, *owned.users, obstacles);
  return owned;
}

void set_engine_ids(Ids& ids) {
  for (const auto& f : kIds) (ids.*f.set)(f.number);
}

void set_container_ids(const Owned& owned, Ids& ids) {
  for (const auto& f : kIds) (ids.*f.set)(f.number + (owned.flags & f.flag ? 10 : 0));
}

unsigned long owned_flags(const Ids& ids, const Ids& engine_ids) {
  unsigned long flags = 0;
  for (const auto& f : kIds)
    if ((ids.*f.get)() != 0 && (ids.*f.get)() != (engine_ids.*f.get)()) flags |= f.flag;
  return flags;
}

Result<Inside> Inside::remember(unsigned long flags) {
  Inside inside;
  for (const auto& kind : all_kinds())
    if (flags & kind.flag)
      inside.back_.emplace_back(TRY(open_at(AT_FDCWD, cat("/proc/self/ns/", kind.name), O_RDONLY)), kind.flag);
  inside.root_ = TRY(open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY));
  inside.cwd_ = TRY(open_at(AT_FDCWD, ".", O_PATH | O_DIRECTORY));
  return inside;
}

Result<Inside> Inside::enter(int pidfd, unsigned long flags) {
  auto inside = TRY(remember(flags));
  if (inside.back_.empty()) return inside;
  TRY(kernel::setns(pidfd, static_cast<int>(flags), "the container's namespaces"));
  return inside;
}

Result<Inside> Inside::join(const std::vector<std::pair<int, int>>& namespaces) {
  unsigned long flags = 0;
  for (auto [fd, type] : namespaces) flags |= static_cast<unsigned long>(type);
  auto inside = TRY(remember(flags));
  for (auto [fd, type] : namespaces) TRY(kernel::setns(fd, type, "joined namespace"));
  return inside;
}

Inside::~Inside() {
  for (auto& [fd, flag] : back_)
    if (auto r = kernel::setns(fd.get(), static_cast<int>(flag), "back"); !r) {
      // Going on in a container's namespace would act on the wrong host.
      log::error("cannot leave the container's namespaces: ", r.error().message());
      ::_exit(1);
    }
  if (!root_.valid() || back_.empty()) return;
  if (::fchdir(root_.get()) < 0 || ::chroot(".") < 0 || ::fchdir(cwd_.get()) < 0) ::_exit(1);
}

void find_obstacles(const procfs::Procfs& proc, pid_t root, int pidfd, const Owned& owned, const Options& options,
                    std::vector<Error>& obstacles) {
  if ((owned.flags & CLONE_NEWNET) && owned.external_net.empty() && !(options.empty_ns & CLONE_NEWNET)) {
    auto inside = Inside::enter(pidfd, CLONE_NEWNET);
    if (inside)
      find_net_obstacles(proc, root, obstacles);
    else
      obstacles.push_back(std::move(inside).error());
  }
}

Result<bool> has_semaphores(int pidfd) {
  const auto inside = TRY(Inside::enter(pidfd, CLONE_NEWIPC));
  return !TRY(list_sysv("sem")).empty();
}

Result<void> dump(int pidfd, const Owned& owned, const Options& options, const Ids& ids, image::Writer& images,
                  memory::SharedObjects& shared) {
  if (owned.users) TRY(dump_user(*owned.users, ids.user_ns_id(), images));
  {
    const bool own = owned.flags & CLONE_NEWTIME;
    const auto inside = TRY(Inside::enter(pidfd, own ? CLONE_NEWTIME : 0));
    TRY(dump_time(own ? ids.time_ns_id() : 0, images));
  }
  const unsigned long mine = owned.flags & (CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET);
  auto inside = TRY(Inside::enter(pidfd, mine));
  if (mine & CLONE_NEWUTS) TRY(dump_uts(ids.uts_ns_id(), images));
  if (mine & CLONE_NEWIPC) TRY(dump_ipc(ids.ipc_ns_id(), images, shared, owned.users ? &*owned.users : nullptr));
  if (mine & CLONE_NEWNET)
    TRY(dump_net(ids.net_ns_id(), owned.external_net, (options.empty_ns & CLONE_NEWNET) != 0, images));
  return {};
}

Result<void> restore(const image::Reader& images, unsigned long flags, const Ids& ids) {
  if (flags & CLONE_NEWUTS) TRY(restore_uts(ids.uts_ns_id(), images));
  if (flags & CLONE_NEWIPC) TRY(restore_ipc(ids.ipc_ns_id(), images));
  return {};
}

Result<void> restore_objects(const image::Reader& images, unsigned long flags, const Ids& ids) {
  if (flags & CLONE_NEWIPC) TRY(restore_posix_queues(images));
  return flags & CLONE_NEWIPC ? restore_ipc_objects(ids.ipc_ns_id(), images) : Result<void>();
}

}  // namespace stasis::namespaces
