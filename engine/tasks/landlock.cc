// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/landlock.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/kernel/syscalls.h"
#include "engine/namespaces/namespaces.h"
#include "engine/namespaces/user.h"
#include "engine/tasks/labels.h"

namespace stasis::tasks {
namespace {

struct Role {
  uint32_t uid, gid;
  const std::string& label;
  int userns_of;  // pidfd, or -1
  const procfs::Procfs& proc;
};

// The ids and nothing else, so that whoever has the same may look into us. What is asked are the real ones.
bool become_nobody_special(const Role& who) {
  if (who.userns_of >= 0 && ::setns(who.userns_of, CLONE_NEWUSER) < 0) return false;
  if (::setresgid(who.gid, who.gid, who.gid) < 0 || ::setresuid(who.uid, who.uid, who.uid) < 0) return false;
  if (!kernel::drop_capabilities() || ::prctl(PR_SET_DUMPABLE, 1) < 0) return false;
  return who.label.empty() || take_label(who.proc, who.label);
}

// The control: the same question from a process of the same ids that has no domain but ours. Where the answer is no,
// another rule of this host stands in the way, and the answers of the tasks mean nothing.
bool can_be_asked() {
  const pid_t self = ::getpid(), child = ::fork();
  if (child == 0) ::_exit(kernel::kcmp(self, self, kernel::Kcmp::kVm) == 0 ? 0 : 1);
  int status = 0;
  while (child > 0 && ::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return child < 0 || status == 0;  // where there is no room for a further process nobody can ask
}

// Ends with the engine, whose end of the pipe `life` closes.
[[noreturn]] void be_probe(const Role& who, int report, int life) {
  const pid_t answer = become_nobody_special(who) ? (can_be_asked() ? ::getpid() : -1) : -errno - 1;
  if (::write(report, &answer, sizeof(answer)) != sizeof(answer)) ::_exit(1);
  ::close(report);
  char end;
  while (::read(life, &end, 1) < 0 && errno == EINTR) {
  }
  ::_exit(0);
}

}  // namespace

Result<void> LandlockProbes::add(const procfs::Procfs& proc, const Who& who, int userns_of) {
  const auto& [uid, gid, label] = who;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return fail_sys("pipe2");
  const Fd answers(ends[0]);
  Fd report(ends[1]);
  const pid_t pid = ::fork();
  if (pid == 0) {
    life_.reset();
    be_probe({uid, gid, label, userns_of, proc}, report.get(), life_of_probes_.get());
  }
  if (pid < 0) return fail_sys("fork");
  auto& probe = probes_[who];
  probe.pid = pid;
  report.reset();
  TRY(read_full(answers.get(), &probe.npid, sizeof(probe.npid), "answer of a helper"));
  if (probe.npid > 0) return {};
  const std::string name = cat("uid ", uid, ", gid ", gid, label.empty() ? "" : ", label ", label);
  if (probe.npid == -1 && !label.empty()) {
    log::warning("tasks with ", name, " cannot be asked whether they are in a Landlock domain: their profile forbids ",
                 "even processes that have it to look into each other (ptrace), ignoring");
    probe.npid = 0;
    return {};
  }
  if (probe.npid == -1)
    return fail(
        Error(Code::kUnsupported,
              cat("whether tasks with ", name,
                  " are in a Landlock domain cannot be told: something else on this host keeps processes of the "
                  "same ids from looking into each other"))
            .about(name));
  errno = -probe.npid - 1;
  return fail_sys("take the ids of the tasks,", name);
}

Result<LandlockProbes> LandlockProbes::start(FrozenTree& tree, bool own_pids, const procfs::UserMaps* users) {
  LandlockProbes probes;
  if (kernel::landlock_version() == 0) return probes;
  int life[2];
  if (::pipe2(life, O_CLOEXEC) < 0) return fail_sys("pipe2");
  probes.life_of_probes_ = Fd(life[0]), probes.life_ = Fd(life[1]);
  const auto proc = TRY(procfs::Procfs::open());
  // Children are born in the namespace of pids that was entered, we ourselves stay.
  const int root = tree.root().pidfd.get();
  const bool apparmor = has_apparmor();
  const auto own_label = apparmor ? apparmor_label(proc, ::getpid(), ::getpid()) : std::string();
  const auto own = TRY(open_at(AT_FDCWD, "/proc/self/ns/pid", O_RDONLY));
  if (own_pids) TRY(kernel::setns(root, CLONE_NEWPID, "pid namespace of the container"));
  auto result = [&]() -> Result<void> {
    for (auto& p : tree.processes())
      for (auto& t : p.threads) {
        if (t.exited) continue;
        auto status = TRY(proc.thread_status(p.pid, t.tid));
        if (users) status = TRY(namespaces::inside_status(std::move(status), *users));
        auto label = apparmor ? apparmor_label(proc, p.pid, t.tid) : std::string();
        const Who who{status.uid[0], status.gid[0], label == own_label ? std::string() : std::move(label)};
        if (!probes.probes_.contains(who)) TRY(probes.add(proc, who, users ? root : -1));
        t.probe = probes.probes_.at(who).npid;
      }
    return {};
  }();
  if (own_pids) TRY(kernel::setns(own.get(), CLONE_NEWPID, "pid namespace of the engine"));
  TRY(std::move(result));
  return probes;
}

LandlockProbes::~LandlockProbes() {
  for (const auto& [who, probe] : probes_) {
    ::kill(probe.pid, SIGKILL);
    while (::waitpid(probe.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

const char* landlock_obstacle(int64_t answer) {
  if (answer == 0) return nullptr;
  return answer == -EPERM ? "is in a Landlock domain, whose rules nobody can read back"
                          : "cannot tell whether it is in a Landlock domain: kcmp(2) fails";
}

}  // namespace stasis::tasks
