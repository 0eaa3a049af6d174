// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/sysmacros.h>

#include "engine/files/inet_options.h"
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
                                        {"bpf-prog", "BPF program (bpf-prog)"},
                                        {"fscontext", "file system being set up (fscontext)"},
                                        {"landlock-ruleset", "set of rules (landlock-ruleset)"}})
      if (name == kernels) return ours;
    return std::string(name);
  }
  if (S_ISSOCK(c.st.st_mode)) return describe_socket(c.copy.get());
  if (S_ISFIFO(c.st.st_mode)) return "named pipe (FIFO)";
  if (S_ISBLK(c.st.st_mode)) return "block device";
  if (S_ISCHR(c.st.st_mode) && c.st.st_rdev == makedev(10, 229)) return "connection of a FUSE file system (/dev/fuse)";
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
      &kUnixSocket,  // the first: what is in its queues becomes known to all others
      &kPipe,        //
      &kFifo,        //
      &kTty,         //
      &kMemfd,       //
      &kPosixQueue,  //
      &kNsFile,      //
      &kRegular,     //
      &kInetSocket,  //
      &kNetlinkSocket, &kPacketSocket,
      &kEventfd,   //
      &kSignalfd,  //
      &kTimerfd,   //
      &kPidfd,     //
      &kEpoll,     // behind what it watches: connect() goes in this order
      &kBpfMap,    //
      &kFanotify,  //
      &kInotify,   // last: what the others do is not to be seen
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
  restore_signals(pid, env, batch);
  return {};
}

Result<void> check_file_image(const pb::file_entry& file, const FileEntries& files, const image::Reader& images) {
  const auto* kind = kind_of(file.type());
  return kind && kind->check_image ? kind->check_image(file, files, images) : Result<void>();
}

const pb::event_extra* find_event_extra(const pb::manifest_entry* manifest, uint32_t file_id) {
  if (!manifest) return nullptr;
  for (const auto& extra : manifest->event_extras())
    if (extra.file_id() == file_id) return &extra;
  return nullptr;
}

const pb::file_extra* find_file_extra(const pb::manifest_entry* manifest, uint32_t file_id) {
  if (!manifest) return nullptr;
  for (const auto& extra : manifest->file_extras())
    if (extra.file_id() == file_id) return &extra;
  return nullptr;
}

Result<void> set_flags(int fd, uint32_t flags, std::string_view name) {
  if (::fcntl(fd, F_SETFL, static_cast<int>(flags & kSettableFlags)) < 0) return fail_sys("fcntl(F_SETFL)", name);
  return {};
}

std::unexpected<Error> corrupt_file(uint32_t id, std::string_view what) {
  return fail(Error(Code::kImageCorrupt, cat("files.img: file ", id, " ", what)).about(cat("file ", id)));
}

std::unexpected<Error> unsupported(const Candidate& c, std::string_view why) {
  return fail(Error(Code::kUnsupportedFile, cat(c.name(), " ", why)).about(c.name()));
}

std::string Candidate::name() const {
  return cat("pid ", pid, fd >= 0 ? cat(" fd ", fd) : std::string(), " (", link, ")");
}

Result<void> check_owner(const Candidate& c) {
  if (c.fd < 0 || (c.info.flags & O_PATH)) return {};
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
