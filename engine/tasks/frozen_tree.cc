// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/frozen_tree.h"

#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "engine/kernel/syscalls.h"
#include "engine/kernel/x86_64/ia32.h"
#include "engine/kernel/x86_64/runner.h"

namespace stasis::tasks {
namespace {

Result<Process> describe(const procfs::Procfs& proc, pid_t pid, pid_t parent) {
  Process p;
  p.tgid = p.pid = pid;
  p.parent = parent;
  p.stat = TRY(proc.stat(pid));
  p.status = TRY(proc.status(pid));
  p.zombie = p.stat.state == 'Z' || p.stat.state == 'X';
  if (p.status.ns_pid.empty() || p.status.ns_pgid.empty() || p.status.ns_sid.empty())
    return fail(Code::kKernelFeature, "/proc/PID/status has no NSpid line");
  p.npid = p.status.ns_pid.back();
  p.npgid = p.status.ns_pgid.back();
  p.nsid = p.status.ns_sid.back();
  if (!p.zombie) return p;
  const auto tids = proc.threads(pid);
  if (!tids) return p;
  for (pid_t tid : *tids) {
    const auto stat = proc.thread_stat(pid, tid);
    if (!stat || stat->state == 'Z' || stat->state == 'X') continue;
    p.zombie = false;
    p.pid = tid;
    p.status = TRY(proc.thread_status(pid, tid));
    break;
  }
  return p;
}

Result<Thread> describe_thread(const procfs::Procfs& proc, const Process& p, pid_t tid) {
  Thread t;
  t.tid = tid;
  const auto status = TRY(proc.thread_status(p.pid, tid));
  t.ntid = status.ns_pid.empty() ? tid : status.ns_pid.back();
  if (status.state == 'Z' || status.state == 'X') {
    if (tid != p.tgid)
      return fail(
          Error(Code::kTaskGone, cat("pid ", p.tgid, ": thread ", tid, " has ended")).about(cat("pid ", p.tgid)));
    t.exited = true;
    t.regs.orig_rax = static_cast<uint64_t>(-1);
    return t;
  }
  t.regs = TRY(kernel::get_regs(tid));
  if (kernel::restart_cut_short(t.regs)) TRY(kernel::set_regs(tid, t.regs));
  t.sigmask = TRY(kernel::get_sigmask(tid));
  return t;
}

}  // namespace

bool is_ia32(const Process& p) {
  return std::ranges::any_of(p.threads, [](const Thread& t) { return kernel::is_ia32(t.regs); });
}

namespace {

// Walks children; a process that ends meanwhile is skipped, its orphans turn up elsewhere.
Result<void> walk(const procfs::Procfs& proc, pid_t pid, pid_t parent, std::vector<Process>& out, bool is_root) {
  auto process = describe(proc, pid, parent);
  if (!process && !is_root && process.error().code() == Code::kTaskGone) return {};
  out.push_back(TRY(std::move(process)));
  if (out.back().zombie) return {};
  auto children = proc.children(pid);
  if (!children && children.error().code() == Code::kTaskGone && !is_root) return {};
  for (pid_t child : TRY(std::move(children))) TRY(walk(proc, child, pid, out, false));
  return {};
}

int64_t now_ms() {
  timespec ts{};
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

Error not_stopped(const procfs::Procfs& proc, pid_t tid) {
  std::string what = cat("pid ", tid, " did not stop");
  if (const auto status = proc.status(tid)) {
    what = cat("pid ", tid, " (", status->name, ") did not stop: it is in state ", std::string(1, status->state));
    if (const auto where = proc.text(tid, "wchan"); where && !trim(*where).empty() && trim(*where) != "0")
      what += cat(", in ", trim(*where));
  }
  return Error(Code::kTimeout, what).about(cat("pid ", tid));
}

}  // namespace

Result<Fd> open_pidfd(const Process& p) {
  if (p.pid == p.tgid) return kernel::pidfd_open(p.pid);
  auto fd = kernel::pidfd_open(p.pid, kernel::kPidfdThread);
  if (!fd && fd.error().sys_errno() == EINVAL)
    return fail(Error(Code::kUnsupported,
                      cat("the first thread of pid ", p.tgid, " (", p.stat.comm,
                          ") has exited while others live on; that takes pidfd_open(PIDFD_THREAD), Linux 6.9"))
                    .about(cat("pid ", p.tgid)));
  return fd;
}

Result<std::vector<Process>> find_tree(const procfs::Procfs& proc, pid_t root) {
  std::vector<Process> out;
  TRY(walk(proc, root, 0, out, true));
  if (out.front().zombie)
    return fail(Error(Code::kTaskGone, cat("pid ", root, " is a zombie")).about(cat("pid ", root)));
  const auto root_ns = TRY(proc.ns(root, "pid"));
  const auto own_ns = TRY(proc.ns(::getpid(), "pid"));
  if (root_ns == own_ns) return out;
  // The whole pid namespace dies with its init, so whoever else is in it belongs to the container.
  std::set<pid_t> known;
  for (const auto& p : out) known.insert(p.tgid);
  for (pid_t pid : TRY(proc.processes())) {
    if (known.contains(pid)) continue;
    const auto ns = proc.ns(pid, "pid");
    if (!ns || !(*ns == root_ns)) continue;
    const auto stat = proc.stat(pid);
    if (!stat || known.contains(stat->ppid)) continue;  // born since the walk; the next round finds it
    const auto parent_ns = proc.ns(stat->ppid, "pid");
    if (parent_ns && *parent_ns == root_ns) continue;
    const size_t first = out.size();
    TRY(walk(proc, pid, 0, out, false));
    for (size_t i = first; i < out.size(); ++i) known.insert(out[i].tgid);
  }
  return out;
}

Result<bool> FrozenTree::seize_new(const procfs::Procfs& proc, std::set<pid_t>& seen, const Options& options) {
  // Suspending filters needs CAP_SYS_ADMIN; a client's tasks have none (engine/client_check.h).
  const unsigned long flags = PTRACE_O_TRACESYSGOOD | (options.client ? 0 : PTRACE_O_SUSPEND_SECCOMP);
  bool news = false;
  processes_ = TRY(find_tree(proc, options.pid));
  for (auto& process : processes_) {
    if (process.zombie) continue;
    auto tids = proc.threads(process.pid);
    if (!tids) continue;
    for (pid_t tid : *tids) {
      if (seen.contains(tid)) continue;
      auto seized = kernel::seize(tid, flags);
      if (!seized) {
        const auto stat = proc.thread_stat(process.pid, tid);
        if (!stat || stat->state == 'Z' || stat->state == 'X') {
          seen.insert(tid);  // ended meanwhile: the list is to be made once more
          news = true;
          continue;
        }
        const auto status = proc.thread_status(process.pid, tid);
        if (status && status->tracer_pid != 0)
          return fail(std::move(seized).error().context(cat("traced by pid ", status->tracer_pid)));
        return fail(std::move(seized).error().with_code(Code::kPermission));
      }
      seen.insert(tid);
      pending_.push_back(tid);
      attached_.insert(tid);
      TRY(kernel::interrupt(tid));
      news = true;
    }
  }
  return news;
}

// True when the thread is stopped, or has ended.
Result<bool> FrozenTree::take_stop(pid_t tid, int timeout_ms) {
  auto stop = kernel::wait_stop(tid, timeout_ms);
  if (!stop && stop.error().code() == Code::kTimeout) return false;
  TRY(stop);
  if (stop->event_stop()) return true;
  if (stop->kind == kernel::Stop::Kind::kExited) {
    attached_.erase(tid);
    return true;
  }
  // A signal that arrived first is put back by continuing with it: the INTERRUPT is still pending.
  TRY(kernel::cont(tid, stop->kind == kernel::Stop::Kind::kSignal ? stop->signal : 0));
  return false;
}

// The parent of a vfork(2) sleeps, and cannot be stopped, until its child has executed a program or ended: a child
// that stands already is let go on for as long. True if the parent is stopped then.
Result<bool> FrozenTree::let_vfork_end(const procfs::Procfs& proc, pid_t tid, int64_t deadline_ms) {
  const auto status = proc.status(tid);
  if (!status || status->state != 'D') return false;
  const auto children = proc.children(status->tgid);
  if (!children) return false;
  for (pid_t child : *children) {
    if (!attached_.contains(child) || std::ranges::count(pending_, child)) continue;
    if (kernel::kcmp(tid, child, kernel::Kcmp::kVm) != 0) continue;
    log::debug("pid ", status->tgid, " waits for its vfork child ", child);
    TRY(kernel::cont(child));
    while (!TRY(take_stop(tid, 1))) {
      if (attached_.contains(child) && TRY(take_stop(child, 1)) && attached_.contains(child)) TRY(kernel::cont(child));
      if (deadline_ms >= 0 && now_ms() > deadline_ms)
        return fail(
            Error(Code::kTimeout, cat("pid ", status->tgid, " (", status->name, ") waits for its vfork child, pid ",
                                      child, ", which neither executes a program nor ends"))
                .about(cat("pid ", status->tgid)));
    }
    if (!attached_.contains(child)) return true;
    TRY(kernel::interrupt(child));
    pending_.push_back(child);
    return true;
  }
  return false;
}

Result<void> FrozenTree::collect_stops(const procfs::Procfs& proc, int timeout_ms) {
  constexpr int kSlice = 50;
  const int64_t deadline = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
  while (!pending_.empty()) {
    const pid_t tid = pending_.back();
    // let_vfork_end() may add to the list.
    if (TRY(take_stop(tid, kSlice)) || TRY(let_vfork_end(proc, tid, deadline))) {
      std::erase(pending_, tid);
      continue;
    }
    if (deadline >= 0 && now_ms() > deadline) return fail(not_stopped(proc, tid));
    std::rotate(pending_.begin(), pending_.end() - 1, pending_.end());
  }
  return {};
}

Result<FrozenTree> FrozenTree::freeze(const procfs::Procfs& proc, const Options& options) {
  FrozenTree tree;
  const int timeout_ms = options.timeout_seconds ? static_cast<int>(options.timeout_seconds) * 1000 : -1;
  if (!options.freeze_cgroup.empty()) tree.freezer_.emplace(TRY(cgroups::Freezer::open(options.freeze_cgroup)));
  if (tree.freezer_) tree.was_frozen_ = tree.freezer_->was_frozen();
  std::set<pid_t> seen;
  // A running container is not frozen: ptrace stops do the same, and they end by themselves if
  // the engine is killed. A frozen task does not reach a ptrace stop, so a paused container is
  // seized frozen and then thawed: every task stops before its first instruction.
  if (tree.freezer_ && tree.freezer_->was_frozen()) {
    while (TRY(tree.seize_new(proc, seen, options))) {
    }
    TRY(tree.freezer_->thaw());
    TRY(tree.collect_stops(proc, timeout_ms));
  }
  // Running tasks may fork until they stop: seize until a round finds nothing new.
  while (TRY(tree.seize_new(proc, seen, options))) TRY(tree.collect_stops(proc, timeout_ms));
  // The last round has found nothing that is not stopped or dead. Whose parent does not ask for the end of its children
  // (SIGCHLD ignored) is seen for a moment, and nobody waits for it.
  Result<void> opened;
  std::erase_if(tree.processes_, [&](Process& p) {
    auto pidfd = open_pidfd(p);
    const bool ended = p.tgid != options.pid && !tree.attached_.contains(p.pid);
    if (!pidfd && ended && pidfd.error().code() == Code::kTaskGone) return true;
    if (pidfd)
      p.pidfd = *std::move(pidfd);
    else if (opened)
      opened = fail(std::move(pidfd).error());
    return false;
  });
  TRY(std::move(opened));
  for (auto& p : tree.processes_) {
    if (p.zombie) continue;
    for (pid_t tid : TRY(proc.threads(p.tgid))) {
      p.threads.push_back(TRY(describe_thread(proc, p, tid)));
      siginfo_t info{};
      // At an EVENT_STOP, si_code holds the group-stop signal, or SIGTRAP when there is none.
      if (tid == p.pid && ::ptrace(PTRACE_GETSIGINFO, tid, nullptr, &info) == 0) {
        const int signal = info.si_code & 0x7f;
        if (signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU) p.stop_signal = signal;
      }
    }
  }
  return tree;
}

pid_t FrozenTree::to_container(pid_t host_pid) const {
  for (const auto& p : processes_)
    if (p.tgid == host_pid) return p.npid;
  return 0;
}

void FrozenTree::release() {
  std::vector<remote::Runner*> runners;
  for (auto& p : processes_)
    if (p.runner) runners.push_back(&*p.runner);
  const auto cured = remote::Runner::cure(runners);
  for (size_t i = 0; i < runners.size(); ++i)
    if (!cured[i])
      log::warning("pid ", runners[i]->pid(), ": the runner could not be removed: ", cured[i].error().message(),
                   ", ignoring");
  for (auto& p : processes_) p.runner.reset();
  // Seized, but never described: their first stop may be still to come.
  for (pid_t tid : pending_) (void)kernel::wait_stop(tid, 1000);
  // A paused container is frozen again before it could run.
  freezer_.reset();
  for (pid_t tid : attached_) (void)kernel::detach(tid);  // an error means that the thread is dead
  attached_.clear();
  done_ = true;
}

FrozenTree::~FrozenTree() {
  if (!done_) release();
}

Result<void> FrozenTree::resume(bool leave_stopped) {
  if (leave_stopped)
    for (auto& p : processes_)
      if (!p.zombie) ::kill(p.tgid, SIGSTOP);
  release();
  return {};
}

Result<void> FrozenTree::kill_all() {
  for (auto& p : processes_) ::kill(p.tgid, SIGKILL);
  // The tracer sees every thread end before the real parent does: each has to be reaped here.
  kernel::reap({attached_.begin(), attached_.end()}, 10000);
  attached_.clear();
  for (auto& p : processes_)
    if (!kernel::pidfd_wait_exit(p.pidfd.get(), 10000))
      return fail(Error(Code::kTimeout, cat("pid ", p.pid, " did not die of SIGKILL")).about(cat("pid ", p.pid)));
  done_ = true;
  return {};
}

}  // namespace stasis::tasks
