// SPDX-License-Identifier: Apache-2.0
// Descriptors of POSIX message queues, mq_open(3). The queues belong to the ipc namespace and come back with it
// (engine/namespaces/posix_queues.h), those without a name with their descriptors. mq_open(3) reaches them through a
// mount that is not in the container's tree, open(2) through one that is.
#include <fcntl.h>
#include <mqueue.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/kernel/syscalls.h"
#include "engine/namespaces/posix_queues.h"

namespace stasis::files {
namespace {

constexpr long kMqueueMagic = 0x19800202;  // include/uapi/linux/magic.h has it not; ipc/mqueue.c
constexpr std::string_view kDeleted = " (deleted)";
constexpr uint32_t kLarge = 0100000;  // O_LARGEFILE: open(2) sets it, mq_open(3) does not

bool matches(const Candidate& c) {
  struct statfs fs {};
  return S_ISREG(c.st.st_mode) && !(c.info.flags & O_PATH) && ::fstatfs(c.copy.get(), &fs) == 0 &&
         fs.f_type == kMqueueMagic;
}

std::string without_end(const Candidate& c) {
  std::string_view link = c.link;
  if (link.ends_with(kDeleted)) link.remove_suffix(kDeleted.size());
  return std::string(link);
}

Result<Fd> open_again(const Candidate& c) {
  return open_at(AT_FDCWD, cat("/proc/self/fd/", c.copy.get()), O_RDWR | O_NONBLOCK);
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  const auto own = TRY(env.proc.ns(::getpid(), "ipc")), theirs = TRY(env.proc.ns(env.root_pid, "ipc"));
  const Fd root = TRY(kernel::pidfd_open(env.root_pid));
  if (own == theirs || c.st.st_dev != TRY(namespaces::posix_queues_device(root.get())))
    return unsupported(c, "is a POSIX message queue that is not in an ipc namespace of the container's own");
  return namespaces::check_posix_queue(TRY(open_again(c)).get(), c.name());
}

// The image of one that lost its name, written when it is first met.
Result<uint32_t> dump_without_name(const Candidate& c, const DumpEnv& env, DumpOutput& out, uint32_t file_id) {
  const auto [at, fresh] = out.queues.try_emplace({c.st.st_dev, c.st.st_ino}, file_id);
  if (!fresh) return at->second;
  const std::string link = without_end(c);
  auto file = TRY(out.images->open(image::Kind::kMqueue, image::file_name(image::Kind::kMqueue, file_id)));
  TRY(namespaces::dump_posix_queue(TRY(open_again(c)).get(), link.substr(link.rfind('/') + 1), env.users, file));
  TRY(file.close());
  return file_id;
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  auto& reg = *entry.mutable_reg();
  entry.set_type(pb::REG);
  reg.set_id(entry.id());
  reg.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  reg.set_pos(c.info.pos);
  set_no_owner(reg.mutable_fown());
  reg.set_mode(c.st.st_mode);
  const std::string link = without_end(c);
  // By what it was opened is told by the path: mq_open(3) knows no directories.
  const bool by_path = c.st.st_nlink != 0 && leads_to(env, link, c.st);
  reg.set_name(by_path ? link : link.substr(link.rfind('/')));
  pb::file_extra extra;
  extra.set_file_id(entry.id());
  extra.set_queue(c.st.st_nlink ? 0 : TRY(dump_without_name(c, env, out, entry.id())));
  out.images->add_file_extra(extra);
  return {};
}

// The kernel always sets FD_CLOEXEC, and O_CLOEXEC would stay among the flags of the file.
Result<Fd> open_queue(const std::string& name, int flags) {
  Fd fd(::mq_open(name.c_str(), flags));
  if (!fd) return fail_sys(Code::kRestoreFailed, "mq_open", name);
  return fd;
}

// All who have them open have them by now.
Result<void> remove_names(RestoreEnv& env) {
  for (const auto& [id, fd] : env.open_queues) {
    const std::string name = TRY(read_link_at(env.proc, cat("self/fd/", fd.get())));
    if (::mq_unlink(name.c_str()) < 0) return fail_sys("mq_unlink", name);
  }
  env.open_queues.clear();
  return {};
}

}  // namespace

Result<Fd> restore_posix_queue(const pb::file_entry& file, uint32_t queue, RestoreEnv& env) {
  const auto& reg = file.reg();
  const int flags = static_cast<int>(reg.flags()) & (O_ACCMODE | O_NONBLOCK);
  Fd fd;
  if (queue) {
    auto [at, fresh] = env.open_queues.try_emplace(queue);
    if (fresh) at->second = TRY(namespaces::restore_posix_queue_without_name(*env.images, queue));
    const std::string self = cat("self/fd/", at->second.get());
    fd = TRY(reg.flags() & kLarge ? open_at(env.proc, self, flags)
                                  : open_queue(TRY(read_link_at(env.proc, self)), flags));
  } else if (reg.name().rfind('/') == 0) {
    fd = TRY(open_queue(reg.name(), flags));
  } else {
    fd = TRY(open_at(AT_FDCWD, reg.name(), flags));
    struct statfs fs {};
    if (::fstatfs(fd.get(), &fs) < 0 || fs.f_type != kMqueueMagic)
      return fail(
          Error(Code::kFileMissing, cat("file ", reg.name(), " is no POSIX message queue now")).about(reg.name()));
  }
  if (reg.pos() != 0 && ::lseek(fd.get(), static_cast<off_t>(reg.pos()), SEEK_SET) < 0)
    return fail_sys("lseek", reg.name());
  return fd;
}

const FileKind kPosixQueue = {.name = "POSIX message queue",
                              .type = pb::REG,
                              .matches = matches,
                              .check = check,
                              .dump = dump,
                              .restore = nullptr,
                              .connect = remove_names};

}  // namespace stasis::files
