// SPDX-License-Identifier: Apache-2.0
// Open namespaces, /proc/PID/ns/*: those that the container itself is in. nsfs, ioctl_ns(2).
#include <fcntl.h>
#include <sys/vfs.h>

#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/namespaces/namespaces.h"

namespace stasis::files {
namespace {

constexpr long kNsfsMagic = 0x6e736673;

// "net:[4026531833]"; one that is bound somewhere has a path.
const namespaces::Kind* kind_named(const Candidate& c) {
  const std::string_view link = c.link;
  for (const auto& kind : namespaces::all_kinds())
    if (link.starts_with(kind.name) && link.substr(std::string_view(kind.name).size()).starts_with(":[")) return &kind;
  return nullptr;
}

bool matches(const Candidate& c) {
  struct statfs fs {};
  return kind_named(c) && ::fstatfs(c.copy.get(), &fs) == 0 && fs.f_type == kNsfsMagic;
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  const auto own = TRY(env.proc.ns(env.root_pid, kind_named(c)->name));
  if (own.inode != c.st.st_ino || own.dev != c.st.st_dev)
    return unsupported(c, "is a namespace that is not the container's own");
  return {};
}

uint32_t id_of(const pb::task_kobj_ids_entry& ids, unsigned long flag) {
  switch (flag) {
    case CLONE_NEWPID: return ids.pid_ns_id();
    case CLONE_NEWNET: return ids.net_ns_id();
    case CLONE_NEWIPC: return ids.ipc_ns_id();
    case CLONE_NEWUTS: return ids.uts_ns_id();
    case CLONE_NEWNS: return ids.mnt_ns_id();
    case CLONE_NEWUSER: return ids.user_ns_id();
    case CLONE_NEWCGROUP: return ids.cgroup_ns_id();
    case CLONE_NEWTIME: return ids.time_ns_id();
    default: return 0;
  }
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput&, pb::file_entry& entry) {
  const auto* kind = kind_named(c);
  entry.set_type(pb::NS);
  auto& ns = *entry.mutable_nsf();
  ns.set_id(entry.id());
  ns.set_ns_id(env.ids ? id_of(*env.ids, kind->flag) : 0);
  ns.set_ns_cflag(static_cast<uint32_t>(kind->flag));
  ns.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  return {};
}

const namespaces::Kind* kind_with(uint32_t flag) {
  for (const auto& kind : namespaces::all_kinds())
    if (kind.flag == flag) return &kind;
  return nullptr;
}

// The root task is in all of them by now.
Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  const int flags = static_cast<int>(entry.nsf().flags() & (O_ACCMODE | O_PATH | kSettableFlags));
  return open_at(env.proc, cat("self/ns/", kind_with(entry.nsf().ns_cflag())->name), flags);
}

Result<void> check_image(const pb::file_entry& entry, const FileEntries&, const image::Reader&) {
  if (!entry.has_nsf()) return corrupt_file(entry.id(), "is no namespace");
  if (!kind_with(entry.nsf().ns_cflag())) return corrupt_file(entry.id(), "is a namespace of an unknown kind");
  return {};
}

}  // namespace

const FileKind kNsFile = {.name = "namespace",
                          .type = pb::NS,
                          .matches = matches,
                          .check = check,
                          .dump = dump,
                          .restore = restore,
                          .check_image = check_image};

}  // namespace stasis::files
