// SPDX-License-Identifier: Apache-2.0
// pidfd_open(2): of tasks and threads of the container, or of ones that have ended. Tasks exist only after files: until
// then a pidfd of the root task holds the place, and each task that has the file gets the real one late.
#include <linux/sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/kernel/syscalls.h"
#include "engine/procfs/fdinfo.h"

namespace stasis::files {
namespace {

constexpr uint32_t kThread = O_EXCL;  // PIDFD_THREAD, Linux 6.9

bool matches(const Candidate& c) { return c.link == "anon_inode:[pidfd]" || c.link.starts_with("pidfd:["); }

// The host's number of the task; nothing: it is no more.
Result<std::optional<pid_t>> target(const Candidate& c, const DumpEnv& env) {
  const auto text = procfs::field(c.info, "Pid");
  const auto pid = text ? parse_int<pid_t>(*text) : std::nullopt;
  if (!pid) return fail(Code::kSystem, cat(c.name(), ": fdinfo does not say whose it is"));
  if (*pid < 0) return std::optional<pid_t>();
  const auto status = env.proc.status(*pid);
  if (!status) return std::optional<pid_t>();
  if (*pid == 0 || !env.pids.contains(status->tgid))
    return unsupported(c, cat("is the pidfd of process ", *pid, ", which is outside the container"));
  return std::optional(*pid);
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  TRY(target(c, env));
  return {};
}

// struct pidfd_info as of Linux 6.15, where an ended process leaves its status.
struct PidfdInfo {
  uint64_t mask = 1u << 3, cgroup = 0;  // PIDFD_INFO_EXIT
  uint32_t ids[11] = {};
  int32_t exit_code = 0;
};
static_assert(sizeof(PidfdInfo) == 64);

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  const auto pid = TRY(target(c, env));
  entry.set_type(pb::PIDFD);
  auto& pidfd = *entry.mutable_pidfd();
  pidfd.set_id(entry.id());
  pidfd.set_nspid(0);
  pidfd.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  set_no_owner(pidfd.mutable_fown());
  if (pid) {
    pidfd.set_nspid(static_cast<uint32_t>(TRY(env.proc.status(*pid)).ns_pid.back()));
    return {};
  }
  PidfdInfo info;
  if (::ioctl(c.copy.get(), _IOWR(0xFF, 11, PidfdInfo), &info) < 0 || !(info.mask & (1u << 3))) return {};
  pb::event_extra extra;
  extra.set_file_id(entry.id());
  extra.set_exit_status(static_cast<uint32_t>(info.exit_code));
  out.images->add_event_extra(extra);
  return {};
}

// Of a process that ends at once.
Result<Fd> of_the_dead(uint32_t status) {
  int pidfd = -1;
  kernel::CloneArgs args{};  // no signal to us when it ends
  args.flags = CLONE_PIDFD;
  args.pidfd = reinterpret_cast<uint64_t>(&pidfd);
  const pid_t pid = kernel::clone3(args);
  if (pid < 0) return fail_sys("clone3");
  if (pid == 0) {
    if ((status & 0x7f) == 0) ::_exit(static_cast<int>(status >> 8 & 0xff));
    ::raise(SIGKILL);
    ::_exit(1);
  }
  Fd fd(pidfd);
  while (::waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) {
  }
  return fd;
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  const auto& pidfd = entry.pidfd();
  const auto* extra = find_event_extra(env.manifest, entry.id());
  Fd fd = pidfd.nspid() ? TRY(kernel::pidfd_open(::getpid())) : TRY(of_the_dead(extra ? extra->exit_status() : 0));
  TRY(set_flags(fd.get(), pidfd.flags(), "pidfd"));
  return fd;
}

// The first task opens it; the others take it from there, so that it is one open file for all.
void open_late(uint32_t pid, const std::vector<pb::fdinfo_entry>& fds, const pb::file_entry& file,
               const RestoreEnv& env, remote::Batch& batch) {
  const int number = env.numbers.at(file.id());
  const uint32_t root = env.tables.front().pid, flags = file.pidfd().flags() & (O_NONBLOCK | kThread);
  const auto [first, second] = free_numbers(fds);
  int opened = first;
  if (pid == root) {
    batch.add(__NR_pidfd_open, file.pidfd().nspid(), flags);
    batch.must(cat("pidfd_open(", file.pidfd().nspid(), ")"));
  } else {
    batch.add(__NR_pidfd_open, root, 0), batch.must("pidfd_open of the root task");
    batch.add(__NR_pidfd_getfd, first, number, 0), batch.must("pidfd_getfd from the root task");
    batch.add(__NR_close, first);
    opened = second;
  }
  batch.add(__NR_dup3, opened, number, O_CLOEXEC), batch.must("dup3 of a pidfd");
  batch.add(__NR_close, opened), batch.must("close of a pidfd");
}

Result<void> open_all_late(uint32_t pid, const std::vector<pb::fdinfo_entry>& fds, const RestoreEnv& env,
                           remote::Batch& batch) {
  for (const auto& [id, file] : env.files) {
    if (!is_late_pidfd(file, env)) continue;
    const bool has = std::ranges::any_of(fds, [id = id](const auto& e) { return e.id() == id; });
    if (!has && pid != env.tables.front().pid) continue;
    open_late(pid, fds, file, env, batch);
    for (const auto& e : fds) {
      if (e.id() != id) continue;
      batch.add(__NR_dup3, env.numbers.at(id), e.fd(), e.flags() & FD_CLOEXEC ? O_CLOEXEC : 0);
      batch.must("dup3 of a pidfd");
    }
  }
  return {};
}

Result<void> check_image(const pb::file_entry& entry, const FileEntries&, const image::Reader&) {
  if (!entry.has_pidfd()) return corrupt_file(entry.id(), "is no pidfd");
  if (entry.pidfd().nspid() > (1u << 22)) return corrupt_file(entry.id(), "is the pidfd of an impossible process");
  return {};
}

}  // namespace

bool is_late_pidfd(const pb::file_entry& file, const RestoreEnv& env) {
  if (file.type() != pb::PIDFD || file.pidfd().nspid() == 0) return false;
  return file.pidfd().nspid() != env.tables.front().pid || (file.pidfd().flags() & kThread);
}

std::pair<int, int> free_numbers(const std::vector<pb::fdinfo_entry>& fds) {
  std::set<uint32_t> used;
  for (const auto& e : fds) used.insert(e.fd());
  auto next = [&](uint32_t from) {
    while (used.contains(from)) ++from;
    return from;
  };
  const uint32_t first = next(0);
  return {static_cast<int>(first), static_cast<int>(next(first + 1))};
}

const FileKind kPidfd = {.name = "pidfd",
                         .type = pb::PIDFD,
                         .matches = matches,
                         .check = check,
                         .dump = dump,
                         .restore = restore,
                         .late = open_all_late,
                         .check_image = check_image};

}  // namespace stasis::files
