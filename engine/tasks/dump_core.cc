// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/dump_core.h"

#include <linux/ioprio.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <cstring>

#include "engine/kernel/syscalls.h"
#include "engine/namespaces/user.h"
#include "engine/tasks/fpu.h"
#include "engine/tasks/snapshot.h"
#include "engine/tasks/switches.h"
#include "engine/tasks/timers.h"

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

namespace stasis::tasks {
namespace {

constexpr int kSignals = 64;
using remote::Batch;

void dump_regs(const kernel::Regs& r, pb::user_x86_regs_entry& out) {
  out.set_r15(r.r15), out.set_r14(r.r14), out.set_r13(r.r13), out.set_r12(r.r12);
  out.set_bp(r.rbp), out.set_bx(r.rbx), out.set_r11(r.r11), out.set_r10(r.r10);
  out.set_r9(r.r9), out.set_r8(r.r8), out.set_ax(r.rax), out.set_cx(r.rcx);
  out.set_dx(r.rdx), out.set_si(r.rsi), out.set_di(r.rdi), out.set_orig_ax(r.orig_rax);
  out.set_ip(r.rip), out.set_cs(r.cs), out.set_flags(r.eflags), out.set_sp(r.rsp), out.set_ss(r.ss);
  out.set_fs_base(r.fs_base), out.set_gs_base(r.gs_base);
  out.set_ds(r.ds), out.set_es(r.es), out.set_fs(r.fs), out.set_gs(r.gs);
  out.set_mode(pb::NATIVE);
}

void dump_signals(const std::vector<siginfo_t>& queue, pb::signal_queue_entry& out) {
  for (const auto& info : queue) out.add_signals()->set_siginfo(&info, sizeof(info));
}

void set_cap(google::protobuf::RepeatedField<uint32_t>* field, uint64_t bits) {
  field->Add(static_cast<uint32_t>(bits));
  field->Add(static_cast<uint32_t>(bits >> 32));
}

void dump_creds(const procfs::Status& s, uint32_t securebits, pb::creds_entry& out) {
  out.set_uid(s.uid[0]), out.set_euid(s.uid[1]), out.set_suid(s.uid[2]), out.set_fsuid(s.uid[3]);
  out.set_gid(s.gid[0]), out.set_egid(s.gid[1]), out.set_sgid(s.gid[2]), out.set_fsgid(s.gid[3]);
  set_cap(out.mutable_cap_inh(), s.cap_inheritable);
  set_cap(out.mutable_cap_prm(), s.cap_permitted);
  set_cap(out.mutable_cap_eff(), s.cap_effective);
  set_cap(out.mutable_cap_bnd(), s.cap_bounding);
  out.set_secbits(securebits);
  for (uint32_t g : s.groups) out.add_groups(g);
  out.set_no_new_privs(s.no_new_privs);
}

// If the thread stood in a restartable sequence, it leaves it as the kernel would make it leave:
// by its abort handler (Documentation: rseq(2); struct rseq_cs of include/uapi/linux/rseq.h).
Result<void> dump_rseq(const Thread& t, kernel::Regs& regs, pb::thread_core_entry& out) {
  const auto rseq = TRY(kernel::get_rseq(t.tid));
  if (rseq.address == 0) return {};
  auto& e = *out.mutable_rseq_entry();
  e.set_rseq_abi_pointer(rseq.address);
  e.set_rseq_abi_size(rseq.size);
  e.set_signature(rseq.signature);
  uint64_t cs_pointer = 0;
  TRY(kernel::vm_read(t.tid, rseq.address + 8, &cs_pointer, 8));
  e.set_rseq_cs_pointer(cs_pointer);
  if (cs_pointer == 0) return {};
  struct {
    uint32_t version, flags;
    uint64_t start, length, abort;
  } cs{};
  TRY(kernel::vm_read(t.tid, cs_pointer, &cs, sizeof(cs)));
  if (regs.rip - cs.start < cs.length) regs.rip = cs.abort;
  return {};
}

Result<void> dump_sched(pid_t tid, const procfs::Stat& stat, pb::thread_core_entry& core, pb::task_extra& extra) {
  core.set_sched_nice(static_cast<int32_t>(stat.nice));
  core.set_sched_policy(stat.policy);
  core.set_sched_prio(stat.rt_priority);
  if (stat.policy > SCHED_DEADLINE)
    return fail(Error(Code::kUnsupported, cat("pid ", tid, " has the scheduling policy ", stat.policy))
                    .about(cat("pid ", tid)));
  if (auto cpus = kernel::get_affinity(tid)) extra.set_cpu_affinity(std::move(*cpus));
  if (const auto ioprio = kernel::get_ioprio(tid)) extra.set_ioprio(*ioprio);
  return {};
}

Result<void> dump_thread(const procfs::Procfs& proc, Process& p, const Thread& t, pb::core_entry& core,
                         pb::task_extra& extra, SeccompTable& seccomp, const procfs::UserMaps* users) {
  core.set_mtype(pb::core_entry::X86_64);
  auto& info = *core.mutable_thread_info();
  auto& tc = *core.mutable_thread_core();
  extra.set_pid(static_cast<uint32_t>(p.npid));
  extra.set_tid(static_cast<uint32_t>(t.ntid));

  kernel::Regs regs = t.regs;
  TRY(dump_rseq(t, regs, tc));
  if (int64_t code = kernel::restart_code(regs); code != 0) {
    if (t.sleep_left_ns) extra.set_sleep_left_ns(*t.sleep_left_ns);
    if (code == kernel::kRestartBlock && !t.sleep_left_ns) code = kernel::kRestartNoHandler;
    extra.mutable_more()->set_restart(static_cast<int32_t>(code));
  }
  kernel::rewind_interrupted_syscall(regs);
  dump_regs(regs, *info.mutable_gpregs());
  const auto xstate = TRY(kernel::get_xstate(t.tid));
  TRY(dump_xstate(xstate, *info.mutable_fpregs()));
  extra.set_xstate(xstate.data(), xstate.size());

  const auto robust = TRY(kernel::get_robust_list(t.tid));
  tc.set_futex_rla(robust.head);
  tc.set_futex_rla_len(static_cast<uint32_t>(robust.length));
  tc.set_blk_sigset(t.sigmask);
  dump_signals(TRY(kernel::peek_signals(t.tid, false)), *tc.mutable_signals_p());

  const auto stat = TRY(proc.thread_stat(p.pid, t.tid));
  auto status = TRY(proc.thread_status(p.pid, t.tid));
  if (users) status = TRY(namespaces::inside_status(std::move(status), *users));
  tc.set_comm(stat.comm);
  TRY(dump_sched(t.tid, stat, tc, extra));
  extra.set_cap_ambient(status.cap_ambient);

  Batch batch;
  const auto altstack = batch.space(24), tid_address = batch.space(8), pdeath = batch.space(4);
  batch.add(__NR_sigaltstack, 0, altstack);
  batch.must("sigaltstack");
  batch.add(__NR_prctl, PR_GET_TID_ADDRESS, tid_address);
  batch.must("prctl(PR_GET_TID_ADDRESS)");
  batch.add(__NR_prctl, PR_GET_PDEATHSIG, pdeath);
  batch.must("prctl(PR_GET_PDEATHSIG)");
  const size_t securebits = batch.add(__NR_prctl, PR_GET_SECUREBITS);
  const size_t slack = batch.add(__NR_prctl, PR_GET_TIMERSLACK);
  TRY(p.runner->run_checked(batch, t.tid));
  info.set_clear_tid_addr(batch.get<uint64_t>(tid_address));
  struct {
    uint64_t sp;
    uint32_t flags, pad;
    uint64_t size;
  } ss = batch.get<decltype(ss)>(altstack);
  auto& sas = *tc.mutable_sas();
  sas.set_ss_sp(ss.sp);
  sas.set_ss_flags(ss.flags & ~uint32_t{SS_ONSTACK});
  sas.set_ss_size(ss.size);
  tc.set_pdeath_sig(batch.get<uint32_t>(pdeath));
  dump_creds(status, static_cast<uint32_t>(batch.result(securebits)), *tc.mutable_creds());
  if (!batch.failed(slack)) extra.set_timer_slack_ns(static_cast<uint64_t>(batch.result(slack)));
  TRY(dump_switches(proc, p, t, extra));

  tc.set_seccomp_mode(static_cast<pb::seccomp_mode>(status.seccomp));
  if (status.seccomp == 2) tc.set_seccomp_filter(TRY(seccomp.add_chain(t.tid)));
  return {};
}

void set_itimer(const itimerval& v, pb::itimer_entry& out) {
  out.set_isec(static_cast<uint64_t>(v.it_interval.tv_sec));
  out.set_iusec(static_cast<uint64_t>(v.it_interval.tv_usec));
  out.set_vsec(static_cast<uint64_t>(v.it_value.tv_sec));
  out.set_vusec(static_cast<uint64_t>(v.it_value.tv_usec));
}

// A leader that has ended is what another thread is, without what the kernel has taken from it: it is restored by
// ending again.
void fill_exited_leader(const procfs::Procfs& proc, const Process& p, DumpedCore& out) {
  auto& core = out.threads.front();
  auto& extra = out.extras.front();
  core = out.threads[1];
  extra = out.extras[1];
  extra.set_tid(static_cast<uint32_t>(p.npid));
  extra.set_exited(true);
  extra.clear_own_timers(), extra.clear_sleep_left_ns(), extra.mutable_more()->clear_restart();
  const auto stat = proc.thread_stat(p.pid, p.tgid);
  if (stat) extra.mutable_more()->set_exit_code(static_cast<uint32_t>(stat->exit_code));
  auto& tc = *core.mutable_thread_core();
  tc.set_futex_rla(0), tc.clear_rseq_entry(), tc.mutable_signals_p()->Clear();
  tc.set_comm(p.stat.comm);
  core.mutable_thread_info()->set_clear_tid_addr(0);
}

// What belongs to the process as a whole and only it can tell.
Result<void> ask_process(Process& p, pb::task_core_entry& tc, pb::mm_entry& mm) {
  Batch batch;
  Batch::Arg actions[kSignals + 1];
  for (int sig = 1; sig <= kSignals; ++sig) {
    if (sig == SIGKILL || sig == SIGSTOP) continue;
    actions[sig] = batch.space(sizeof(kernel::KernelSigaction));
    batch.add(__NR_rt_sigaction, sig, 0, actions[sig], 8);
    batch.must("rt_sigaction");
  }
  Batch::Arg timers[3];
  for (int which = 0; which < 3; ++which) {
    timers[which] = batch.space(sizeof(itimerval));
    batch.add(__NR_getitimer, which, timers[which]);
    batch.must("getitimer");
  }
  const auto subreaper = batch.space(4);
  batch.add(__NR_prctl, PR_GET_CHILD_SUBREAPER, subreaper);
  batch.must("prctl(PR_GET_CHILD_SUBREAPER)");
  const size_t dumpable = batch.add(__NR_prctl, PR_GET_DUMPABLE);
  const size_t thp = batch.add(__NR_prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0);
  const size_t brk = batch.add(__NR_brk, 0);
  TRY(p.runner->run_checked(batch));
  for (int sig = 1; sig <= kSignals; ++sig) {
    if (sig == SIGKILL || sig == SIGSTOP) continue;
    const auto action = batch.get<kernel::KernelSigaction>(actions[sig]);
    auto& e = *tc.add_sigactions();
    e.set_sigaction(action.handler);
    e.set_flags(action.flags);
    e.set_restorer(action.restorer);
    e.set_mask(action.mask);
    e.set_compat_sigaction(false);
  }
  auto& t = *tc.mutable_timers();
  set_itimer(batch.get<itimerval>(timers[0]), *t.mutable_real());
  set_itimer(batch.get<itimerval>(timers[1]), *t.mutable_virt());
  set_itimer(batch.get<itimerval>(timers[2]), *t.mutable_prof());
  tc.set_child_subreaper(batch.get<uint32_t>(subreaper) != 0);
  mm.set_dumpable(static_cast<int32_t>(batch.result(dumpable)));
  if (batch.result(thp) > 0) mm.set_thp_disabled(true);
  mm.set_mm_brk(static_cast<uint64_t>(batch.result(brk)));
  return {};
}

// Asked of the task itself: for another user's task prlimit(2) wants CAP_SYS_RESOURCE.
Result<void> dump_limits(Process& p, pb::task_rlimits_entry& out) {
  Batch batch;
  Batch::Arg limits[RLIM_NLIMITS];
  for (int which = 0; which < RLIM_NLIMITS; ++which) {
    limits[which] = batch.space(sizeof(rlimit));
    batch.add(__NR_prlimit64, 0, which, 0, limits[which]);
    batch.must("prlimit64");
  }
  TRY(p.runner->run_checked(batch));
  for (const auto& at : limits) {
    const auto limit = batch.get<rlimit>(at);
    auto& e = *out.add_rlimits();
    e.set_cur(limit.rlim_cur);
    e.set_max(limit.rlim_max);
  }
  return {};
}

Result<void> dump_mm(const procfs::Procfs& proc, const Process& p, pb::mm_entry& mm) {
  const auto stat = TRY(proc.stat(p.pid));
  mm.set_mm_start_code(stat.start_code), mm.set_mm_end_code(stat.end_code);
  mm.set_mm_start_data(stat.start_data), mm.set_mm_end_data(stat.end_data);
  mm.set_mm_start_stack(stat.start_stack), mm.set_mm_start_brk(stat.start_brk);
  mm.set_mm_arg_start(stat.arg_start), mm.set_mm_arg_end(stat.arg_end);
  mm.set_mm_env_start(stat.env_start), mm.set_mm_env_end(stat.env_end);
  const std::string auxv = TRY(proc.text(p.pid, "auxv"));
  for (size_t at = 0; at + 8 <= auxv.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, auxv.data() + at, 8);
    mm.add_mm_saved_auxv(word);
  }
  return {};
}

}  // namespace

Result<DumpedCore> dump_core(const procfs::Procfs& proc, Process& p, SeccompTable& seccomp,
                             const procfs::UserMaps* users) {
  DumpedCore out;
  for (const auto& thread : p.threads) {
    auto& core = out.threads.emplace_back();
    auto& extra = out.extras.emplace_back();
    if (!thread.exited) TRY_CTX(dump_thread(proc, p, thread, core, extra, seccomp, users), "pid ", p.pid);
  }
  if (p.threads.front().exited) fill_exited_leader(proc, p, out);
  auto& tc = *out.threads.front().mutable_tc();
  tc.set_task_state(p.stop_signal ? kTaskStopped : kTaskAlive);
  if (p.stop_signal) tc.set_stop_signo(static_cast<uint32_t>(p.stop_signal));
  tc.set_exit_code(0);
  const std::string personality = TRY(proc.text(p.pid, "personality"));
  tc.set_personality(parse_int<uint32_t>(trim(personality), 16).value_or(0));
  tc.set_flags(0);
  tc.set_blk_sigset(p.threads.front().sigmask);
  tc.set_comm(p.stat.comm);
  dump_signals(TRY(kernel::peek_signals(p.pid, true)), *tc.mutable_signals_s());
  TRY(dump_limits(p, *tc.mutable_rlimits()));
  if (p.stat.exit_signal != SIGCHLD) out.extras.front().set_exit_signal(static_cast<uint32_t>(p.stat.exit_signal));
  if (const auto login = proc.text(p.pid, "loginuid"))
    if (auto uid = parse_int<uint32_t>(trim(*login)); uid && *uid != ~0u) {
      // A login from outside, which the container's user namespace does not have, cannot be set in it.
      if (users) uid = users->uid.inside(*uid);
      if (uid) tc.set_loginuid(*uid);
    }
  const auto score = proc.text(p.pid, "oom_score_adj");
  if (score) tc.set_oom_score_adj(parse_int<int32_t>(trim(*score)).value_or(0));
  TRY(dump_mm(proc, p, out.mm));
  TRY(ask_process(p, tc, out.mm));
  TRY(dump_posix_timers(proc, p, out.threads, out.extras));
  return out;
}

pb::core_entry dump_zombie(const Process& process) {
  pb::core_entry core;
  core.set_mtype(pb::core_entry::X86_64);
  auto& tc = *core.mutable_tc();
  tc.set_task_state(kTaskDead);
  tc.set_exit_code(static_cast<uint32_t>(process.stat.exit_code));
  tc.set_personality(0);
  tc.set_flags(0);
  tc.set_blk_sigset(0);
  tc.set_comm(process.stat.comm);
  return core;
}

}  // namespace stasis::tasks
