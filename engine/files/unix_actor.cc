// SPDX-License-Identifier: Apache-2.0
#include "engine/files/unix_actor.h"

#include <fcntl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/base/strings.h"
#include "engine/kernel/syscalls.h"

namespace stasis::files {
namespace {

// The effective ids are what is remembered. Capabilities stay.
class Ids {
 public:
  static Result<Ids> take(const UnixActor& who) {
    Ids ids;
    const uint32_t uid = who.uid.value_or(ids.uid_), gid = who.gid.value_or(ids.gid_);
    if (uid == ids.uid_ && gid == ids.gid_) return ids;
    ids.bits_ = ::prctl(PR_GET_SECUREBITS);
    // Who is not root can only be himself.
    if (ids.bits_ < 0 || ::prctl(PR_SET_SECUREBITS, ids.bits_ | SECBIT_NO_SETUID_FIXUP) < 0) return ids;
    (void)::prctl(PR_GET_PDEATHSIG, &ids.death_signal_);
    ids.dumpable_ = ::prctl(PR_GET_DUMPABLE);
    ids.taken_ = true;
    if (::setresgid(static_cast<gid_t>(-1), gid, static_cast<gid_t>(-1)) < 0 ||
        ::setresuid(static_cast<uid_t>(-1), uid, static_cast<uid_t>(-1)) < 0)
      return fail_sys(Code::kRestoreFailed, "take the ids of a socket's owner", cat(uid, ":", gid));
    return ids;
  }
  Ids(Ids&& other) noexcept
      : uid_(other.uid_),
        gid_(other.gid_),
        bits_(other.bits_),
        death_signal_(other.death_signal_),
        dumpable_(other.dumpable_),
        taken_(std::exchange(other.taken_, false)) {}
  Ids& operator=(Ids&&) = delete;
  ~Ids() {
    if (!taken_) return;
    (void)::setresuid(static_cast<uid_t>(-1), uid_, static_cast<uid_t>(-1));
    (void)::setresgid(static_cast<gid_t>(-1), gid_, static_cast<gid_t>(-1));
    (void)::prctl(PR_SET_SECUREBITS, bits_);
    // A change of ids takes these away.
    (void)::prctl(PR_SET_PDEATHSIG, death_signal_);
    (void)::prctl(PR_SET_DUMPABLE, dumpable_);
  }

 private:
  Ids() = default;
  uint32_t uid_ = ::geteuid(), gid_ = ::getegid();
  int bits_ = 0, death_signal_ = 0, dumpable_ = 1;
  bool taken_ = false;
};

Result<void> call_with_ids(const UnixActor& who, const std::function<Result<void>()>& call) {
  const auto ids = TRY(Ids::take(who));
  return call();
}

}  // namespace

Result<void> act_as(const UnixActor& who, const std::function<Result<void>()>& call) {
  if (who.pid <= 0 || who.pid == ::getpid()) return call_with_ids(who, call);
  kernel::CloneArgs args{};
  args.flags = CLONE_FILES;
  args.exit_signal = SIGCHLD;
  args.set_tid = reinterpret_cast<uint64_t>(&who.pid);
  args.set_tid_size = 1;
  const pid_t child = kernel::clone3(args);
  if (child == 0) {
    const auto done = call_with_ids(who, call);
    ::_exit(done ? 0 : done.error().sys_errno() > 0 ? done.error().sys_errno() : EIO);
  }
  if (child < 0) {
    log::debug("pid ", who.pid, " is taken: what it has connected or sent will be pid ", ::getpid(), "'s");
    return call_with_ids(who, call);
  }
  int status = 0;
  pid_t got;
  do got = ::waitpid(child, &status, __WALL);
  while (got < 0 && errno == EINTR);
  if (got != child || !WIFEXITED(status)) return fail(Code::kRestoreFailed, cat("a helper as pid ", who.pid, " died"));
  errno = WEXITSTATUS(status);
  return errno == 0 ? Result<void>() : Result<void>(fail_sys(Code::kRestoreFailed, "act as", cat("pid ", who.pid)));
}

Result<pid_t> ask_inside(int ns, const std::function<pid_t()>& ask) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return fail_sys("pipe2");
  const Fd out(ends[0]), in(ends[1]);
  const Fd own = TRY(open_at(AT_FDCWD, "/proc/self/ns/pid_for_children", O_RDONLY));
  TRY(kernel::setns(ns, CLONE_NEWPID, "pid namespace of the container"));
  kernel::CloneArgs args{};
  args.flags = CLONE_FILES;
  args.exit_signal = SIGCHLD;
  const pid_t child = kernel::clone3(args);
  if (child == 0) {
    const pid_t answer = ask();
    ::_exit(::write(in.get(), &answer, sizeof(answer)) == sizeof(answer) ? 0 : 1);
  }
  const int error = errno;
  TRY(kernel::setns(own.get(), CLONE_NEWPID, "pid namespace of the engine"));
  errno = error;
  if (child < 0) return fail_sys("clone3");
  int status = 0;
  pid_t got;
  do got = ::waitpid(child, &status, __WALL);
  while (got < 0 && errno == EINTR);
  pid_t answer = 0;
  if (status != 0 || got != child) return fail(Code::kSystem, "a helper in the container's pid namespace died");
  TRY(read_full(out.get(), &answer, sizeof(answer), "answer of a helper"));
  return answer;
}

}  // namespace stasis::files
