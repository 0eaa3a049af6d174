// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/questions.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <algorithm>

#include "engine/kernel/syscalls.h"
#include "engine/tasks/landlock.h"

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

namespace stasis::tasks {
namespace {

using remote::Batch;

constexpr int kSignals = 64;
bool has_action(int signal) { return signal != SIGKILL && signal != SIGSTOP; }

void set_itimer(const itimerval& v, pb::itimer_entry& out) {
  out.set_isec(static_cast<uint64_t>(v.it_interval.tv_sec));
  out.set_iusec(static_cast<uint64_t>(v.it_interval.tv_usec));
  out.set_vsec(static_cast<uint64_t>(v.it_value.tv_sec));
  out.set_vusec(static_cast<uint64_t>(v.it_value.tv_usec));
}

}  // namespace

ThreadQuestions::ThreadQuestions(Batch& batch, pid_t landlock_probe)
    : altstack_(batch.space(24)), tid_address_(batch.space(8)), pdeath_(batch.space(4)) {
  batch.add(__NR_sigaltstack, 0, altstack_);
  batch.must("sigaltstack");
  batch.add(__NR_prctl, PR_GET_TID_ADDRESS, tid_address_);
  batch.must("prctl(PR_GET_TID_ADDRESS)");
  batch.add(__NR_prctl, PR_GET_PDEATHSIG, pdeath_);
  batch.must("prctl(PR_GET_PDEATHSIG)");
  securebits_ = batch.add(__NR_prctl, PR_GET_SECUREBITS);
  slack_ = batch.add(__NR_prctl, PR_GET_TIMERSLACK);
  if (landlock_probe) landlock_ = batch.add(__NR_kcmp, landlock_probe, landlock_probe, kernel::Kcmp::kVm, 0, 0);
  if (has_apparmor()) next_label_.emplace(batch);
}

Result<void> ThreadQuestions::check(const Batch& batch) const {
  if (!landlock_) return {};
  const char* obstacle = landlock_obstacle(batch.result(*landlock_));
  return obstacle ? Result<void>(fail(Code::kUnsupported, obstacle)) : Result<void>();
}

int ThreadQuestions::opened(const Batch& batch) const { return next_label_ ? next_label_->opened(batch) : -1; }

void ThreadQuestions::read(const Batch& batch, pb::core_entry& core, pb::task_extra& extra) const {
  core.mutable_thread_info()->set_clear_tid_addr(batch.get<uint64_t>(tid_address_));
  struct {
    uint64_t sp;
    uint32_t flags, pad;
    uint64_t size;
  } ss = batch.get<decltype(ss)>(altstack_);
  auto& tc = *core.mutable_thread_core();
  auto& sas = *tc.mutable_sas();
  sas.set_ss_sp(ss.sp);
  sas.set_ss_flags(ss.flags & ~uint32_t{SS_ONSTACK});
  sas.set_ss_size(ss.size);
  tc.set_pdeath_sig(batch.get<uint32_t>(pdeath_));
  tc.mutable_creds()->set_secbits(static_cast<uint32_t>(batch.result(securebits_)));
  if (const auto next = next_label_ ? next_label_->read(batch) : std::string(); !next.empty())
    extra.mutable_more()->set_lsm_exec(next);
  if (!batch.failed(slack_)) extra.set_timer_slack_ns(static_cast<uint64_t>(batch.result(slack_)));
}

ProcessQuestions::ProcessQuestions(Batch& batch)
    : actions_(kSignals + 1), subreaper_(batch.space(4)), barriers_(batch) {
  for (int sig = 1; sig <= kSignals; ++sig) {
    if (!has_action(sig)) continue;
    actions_[static_cast<size_t>(sig)] = batch.space(sizeof(kernel::KernelSigaction));
    batch.add(__NR_rt_sigaction, sig, 0, actions_[static_cast<size_t>(sig)], 8);
    batch.must("rt_sigaction");
  }
  for (int which = 0; which < 3; ++which) {
    timers_.push_back(batch.space(sizeof(itimerval)));
    batch.add(__NR_getitimer, which, timers_.back());
    batch.must("getitimer");
  }
  // Asked of the task itself: for another user's task prlimit(2) wants CAP_SYS_RESOURCE.
  for (int which = 0; which < RLIM_NLIMITS; ++which) {
    limits_.push_back(batch.space(sizeof(rlimit)));
    batch.add(__NR_prlimit64, 0, which, 0, limits_.back());
    batch.must("prlimit64");
  }
  batch.add(__NR_prctl, PR_GET_CHILD_SUBREAPER, subreaper_);
  batch.must("prctl(PR_GET_CHILD_SUBREAPER)");
  dumpable_ = batch.add(__NR_prctl, PR_GET_DUMPABLE);
  thp_ = batch.add(__NR_prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0);
  brk_ = batch.add(__NR_brk, 0);
  ldt_ = batch.add(__NR_modify_ldt, 0, batch.space(8), 8);
}

Result<void> ProcessQuestions::read(const Batch& batch, pb::task_core_entry& tc, pb::mm_entry& mm) const {
  // Its length; without one it is 0, or the call is not there.
  if (batch.result(ldt_) > 0) return fail(Code::kUnsupported, "has a local descriptor table, modify_ldt(2)");
  for (int sig = 1; sig <= kSignals; ++sig) {
    if (!has_action(sig)) continue;
    const auto action = batch.get<kernel::KernelSigaction>(actions_[static_cast<size_t>(sig)]);
    auto& e = *tc.add_sigactions();
    e.set_sigaction(action.handler);
    e.set_flags(action.flags);
    e.set_restorer(action.restorer);
    e.set_mask(action.mask);
    e.set_compat_sigaction(false);
  }
  auto& t = *tc.mutable_timers();
  set_itimer(batch.get<itimerval>(timers_[ITIMER_REAL]), *t.mutable_real());
  set_itimer(batch.get<itimerval>(timers_[ITIMER_VIRTUAL]), *t.mutable_virt());
  set_itimer(batch.get<itimerval>(timers_[ITIMER_PROF]), *t.mutable_prof());
  for (const auto& at : limits_) {
    const auto limit = batch.get<rlimit>(at);
    auto& e = *tc.mutable_rlimits()->add_rlimits();
    e.set_cur(limit.rlim_cur);
    e.set_max(limit.rlim_max);
  }
  if (const uint32_t registered = barriers_.read(batch)) tc.set_membarrier_registration_mask(registered);
  tc.set_child_subreaper(batch.get<uint32_t>(subreaper_) != 0);
  mm.set_dumpable(static_cast<int32_t>(batch.result(dumpable_)));
  if (batch.result(thp_) > 0) mm.set_thp_disabled(true);
  mm.set_mm_brk(static_cast<uint64_t>(batch.result(brk_)));
  return {};
}

Answers::Answers(bool of_process, pid_t landlock_probe) : thread(batch, landlock_probe), switches(batch) {
  if (of_process) process.emplace(batch);
}

namespace {

Result<void> check_thread(Process& p, pid_t tid, const Answers& answers) {
  if (const int fd = answers.thread.opened(answers.batch); fd >= 0) {
    Batch close;
    close.add(__NR_close, fd);
    TRY(p.runner->run(close, tid));
  }
  auto ok = answers.thread.check(answers.batch);
  if (ok) return ok;
  const std::string name = tid == p.tgid ? cat("pid ", p.tgid) : cat("thread ", tid, " of pid ", p.tgid);
  return fail(Error(ok.error().code(), cat(name, " (", p.stat.comm, ") ", ok.error().message())).about(name));
}

}  // namespace

Result<std::map<pid_t, Answers>> ask_all(std::vector<Process>& processes) {
  std::map<pid_t, Answers> out;
  std::vector<Process*> begun;
  Result<void> result;
  for (auto& p : processes) {
    if (!p.runner || !result) continue;
    const auto first = std::ranges::find(p.threads, p.pid, &Thread::tid);
    auto& answers = out.try_emplace(p.pid, true, first == p.threads.end() ? 0 : first->probe).first->second;
    result = p.runner->start(answers.batch, p.pid);
    if (result) begun.push_back(&p);
  }
  // Each that has begun has to come to its end, whatever happens to the others.
  for (auto* p : begun) {
    auto& answers = out.at(p->pid);
    auto done = p->runner->finish_checked(answers.batch, p->pid);
    if (done) done = check_thread(*p, p->pid, answers);
    if (!done && result) result = std::move(done);
  }
  TRY(std::move(result));
  return out;
}

Result<Answers> ask_thread(Process& process, const Thread& thread) {
  Answers answers(false, thread.probe);
  TRY(process.runner->run_checked(answers.batch, thread.tid));
  TRY(check_thread(process, thread.tid, answers));
  return answers;
}

}  // namespace stasis::tasks
