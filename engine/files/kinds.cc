// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "engine/files/kind.h"

namespace stasis::files {
namespace {

// What /proc shows for kinds that have no file of their own here yet, in plain words.
std::string describe_kind(const Candidate& c) {
  if (c.link.starts_with("anon_inode:")) {
    std::string_view name = c.link;
    name.remove_prefix(11);
    if (name.starts_with("[") && name.ends_with("]")) name = name.substr(1, name.size() - 2);
    for (const auto& [kernels, ours] : {std::pair{"perf_event", "performance counter (perf_event)"},
                                        {"bpf-map", "BPF map (bpf-map)"},
                                        {"bpf-prog", "BPF program (bpf-prog)"},
                                        {"fscontext", "file system being set up (fscontext)"},
                                        {"landlock-ruleset", "set of rules (landlock-ruleset)"}})
      if (name == kernels) return ours;
    return std::string(name);
  }
  if (S_ISSOCK(c.st.st_mode)) return "socket";
  if (S_ISFIFO(c.st.st_mode)) return "named pipe (FIFO)";
  if (S_ISBLK(c.st.st_mode)) return "block device";
  if (S_ISCHR(c.st.st_mode)) return cat("character device ", major(c.st.st_rdev), ":", minor(c.st.st_rdev));
  return "file of unknown kind";
}

Result<void> refuse(const Candidate& c, const DumpEnv&) {
  return fail(
      Error(Code::kUnsupportedFile, cat(c.name(), " is a ", describe_kind(c), ", which cannot be checkpointed yet"))
          .about(c.name()));
}

const FileKind kUnknown = {"anything else", pb::UND, [](const Candidate&) { return true; }, refuse, nullptr, nullptr};

}  // namespace

const std::vector<const FileKind*>& all_kinds() {
  // The first that matches.
  static const std::vector<const FileKind*> table = {
      &kPipe,        //
      &kFifo,        //
      &kTty,         //
      &kMemfd,       //
      &kRegular,     //
      &kInetSocket,  //
      &kInotify,     // last: what the others do is not to be seen
      &kUnknown,
  };
  return table;
}

const FileKind& kind_of(const Candidate& candidate) {
  for (const auto* kind : all_kinds())
    if (kind->matches(candidate)) return *kind;
  return kUnknown;
}

const FileKind* kind_of(pb::fd_types type) {
  for (const auto* kind : all_kinds())
    if (kind->type == type && kind->restore) return kind;
  return nullptr;
}

Result<void> finish_dump(const DumpEnv& env, DumpOutput& out) {
  for (const auto* kind : all_kinds())
    if (kind->finish_dump) TRY(kind->finish_dump(env, out));
  return {};
}

Result<void> connect(RestoreEnv& env) {
  for (const auto* kind : all_kinds())
    if (kind->connect) TRY(kind->connect(env));
  return take_locks(env);
}

Result<void> in_task(uint32_t pid, const std::vector<pb::fdinfo_entry>& fds, const RestoreEnv& env) {
  for (const auto* kind : all_kinds())
    if (kind->in_task) TRY(kind->in_task(pid, fds, env));
  return {};
}

Result<void> late(uint32_t pid, const std::vector<pb::fdinfo_entry>& fds, const RestoreEnv& env, remote::Batch& batch) {
  for (const auto* kind : all_kinds())
    if (kind->late) TRY(kind->late(pid, fds, env, batch));
  take_own_locks(pid, env, batch);
  return {};
}

std::string Candidate::name() const {
  return cat("pid ", pid, fd >= 0 ? cat(" fd ", fd) : std::string(), " (", link, ")");
}

Result<void> check_owner(const Candidate& c) {
  if (c.fd < 0 || (c.info.flags & O_PATH)) return {};
  const int owner = ::fcntl(c.copy.get(), F_GETOWN);
  const int signal = ::fcntl(c.copy.get(), 11 /* F_GETSIG */);
  // Who takes a lease becomes the owner, if there is none yet, and O_ASYNC is set: taking it again does that too.
  const bool by_lease = std::ranges::any_of(c.info.rest, [&](const auto& line) {
    const auto lock = parse_lock(line);
    return lock && lock->entry.flag() == kLease && lock->entry.pid() == owner;
  });
  if ((owner != 0 && owner != -1 && !by_lease) || signal > 0 || ((c.info.flags & O_ASYNC) && !by_lease))
    return fail(Error(Code::kUnsupportedFile, cat(c.name(), " sends signals on I/O (F_SETOWN)")).about(c.name()));
  return check_locks(c);
}

int inherited_fd(const Options& options, std::string_view key) {
  for (const auto& inherit : options.inherit_fds)
    if (inherit.key == key) return inherit.fd;
  return -1;
}

Result<Owner> owner_of(const Candidate& c, const DumpEnv& env) {
  if (!env.users) return Owner{c.st.st_uid, c.st.st_gid};
  const auto uid = env.users->uid.inside(c.st.st_uid), gid = env.users->gid.inside(c.st.st_gid);
  if (!uid || !gid)
    return fail(
        Error(Code::kUnsupportedFile, cat(c.name(), " belongs to user ", c.st.st_uid, " and group ", c.st.st_gid,
                                          " of the host, which the container's user namespace does not have"))
            .about(c.name()));
  return Owner{*uid, *gid};
}

void set_no_owner(pb::fown_entry* fown) {
  fown->set_uid(0), fown->set_euid(0), fown->set_signum(0), fown->set_pid_type(0), fown->set_pid(0);
}

}  // namespace stasis::files
