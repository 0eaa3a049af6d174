// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/dump_core.h"

#include <linux/ioprio.h>
#include <sched.h>
#include <signal.h>

#include <cstring>

#include "engine/kernel/syscalls.h"
#include "engine/kernel/x86_64/ia32.h"
#include "engine/namespaces/user.h"
#include "engine/tasks/fpu.h"
#include "engine/tasks/labels.h"
#include "engine/tasks/snapshot.h"
#include "engine/tasks/switches.h"
#include "engine/tasks/timers.h"

namespace stasis::tasks {
namespace {

void dump_regs(const kernel::Regs& r, pb::user_x86_regs_entry& out) {
  out.set_r15(r.r15), out.set_r14(r.r14), out.set_r13(r.r13), out.set_r12(r.r12);
  out.set_bp(r.rbp), out.set_bx(r.rbx), out.set_r11(r.r11), out.set_r10(r.r10);
  out.set_r9(r.r9), out.set_r8(r.r8), out.set_ax(r.rax), out.set_cx(r.rcx);
  out.set_dx(r.rdx), out.set_si(r.rsi), out.set_di(r.rdi), out.set_orig_ax(r.orig_rax);
  out.set_ip(r.rip), out.set_cs(r.cs), out.set_flags(r.eflags), out.set_sp(r.rsp), out.set_ss(r.ss);
  out.set_fs_base(r.fs_base), out.set_gs_base(r.gs_base);
  out.set_ds(r.ds), out.set_es(r.es), out.set_fs(r.fs), out.set_gs(r.gs);
  out.set_mode(kernel::is_ia32(r) ? pb::COMPAT : pb::NATIVE);
}

Result<void> dump_tls(pid_t tid, pb::thread_info_x86& out) {
  for (const auto& slot : TRY(kernel::get_tls_slots(tid))) {
    auto& e = *out.add_tls();
    e.set_entry_number(slot.number);
    e.set_base_addr(slot.base);
    e.set_limit(slot.limit);
    e.set_seg_32bit(slot.seg_32bit);
    e.set_contents_h(slot.contents >> 1);
    e.set_contents_l(slot.contents & 1);
    e.set_read_exec_only(slot.read_exec_only);
    e.set_limit_in_pages(slot.limit_in_pages);
    e.set_seg_not_present(slot.not_present);
    e.set_usable(slot.useable);
  }
  return {};
}

// 32-bit code has a list of its own.
Result<void> dump_robust_list(const Thread& t, pb::thread_core_entry& out) {
  auto list = TRY(kernel::get_robust_list(t.tid));
  if (kernel::is_ia32(t.regs)) {
    if (list.head != 0)
      return fail(Error(Code::kUnsupported, cat("thread ", t.tid, " of 32-bit code has a robust list of 64-bit code"))
                      .about(cat("pid ", t.tid)));
    list = TRY(kernel::get_ia32_robust_list(t.tid));
  }
  out.set_futex_rla(list.head);
  out.set_futex_rla_len(static_cast<uint32_t>(list.length));
  return {};
}

void dump_signals(const std::vector<siginfo_t>& queue, pb::signal_queue_entry& out) {
  for (const auto& info : queue) out.add_signals()->set_siginfo(&info, sizeof(info));
}

void set_cap(google::protobuf::RepeatedField<uint32_t>* field, uint64_t bits) {
  field->Add(static_cast<uint32_t>(bits));
  field->Add(static_cast<uint32_t>(bits >> 32));
}

void dump_creds(const procfs::Status& s, pb::creds_entry& out) {
  out.set_uid(s.uid[0]), out.set_euid(s.uid[1]), out.set_suid(s.uid[2]), out.set_fsuid(s.uid[3]);
  out.set_gid(s.gid[0]), out.set_egid(s.gid[1]), out.set_sgid(s.gid[2]), out.set_fsgid(s.gid[3]);
  set_cap(out.mutable_cap_inh(), s.cap_inheritable);
  set_cap(out.mutable_cap_prm(), s.cap_permitted);
  set_cap(out.mutable_cap_eff(), s.cap_effective);
  set_cap(out.mutable_cap_bnd(), s.cap_bounding);
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

Result<void> dump_thread(const procfs::Procfs& proc, const Process& p, const Thread& t, const Answers& answers,
                         pb::core_entry& core, pb::task_extra& extra, SeccompTable& seccomp,
                         const procfs::UserMaps* users) {
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
  auto xstate = TRY(kernel::get_xstate(t.tid));
  mark_key_rights(xstate);
  TRY(dump_xstate(xstate, *info.mutable_fpregs()));
  extra.set_xstate(xstate.data(), xstate.size());

  TRY(dump_tls(t.tid, info));
  TRY(dump_robust_list(t, tc));
  tc.set_blk_sigset(t.sigmask);
  dump_signals(TRY(kernel::peek_signals(t.tid, false)), *tc.mutable_signals_p());

  const auto stat = TRY(proc.thread_stat(p.pid, t.tid));
  auto status = TRY(proc.thread_status(p.pid, t.tid));
  if (users) status = TRY(namespaces::inside_status(std::move(status), *users));
  tc.set_comm(stat.comm);
  TRY(dump_sched(t.tid, stat, tc, extra));
  extra.set_cap_ambient(status.cap_ambient);

  dump_creds(status, *tc.mutable_creds());
  TRY(dump_label(proc, p.pid, t.tid, *tc.mutable_creds()));
  answers.thread.read(answers.batch, core, extra);
  TRY(answers.switches.read(answers.batch, proc, p, t, extra));

  tc.set_seccomp_mode(static_cast<pb::seccomp_mode>(status.seccomp));
  if (status.seccomp == 2) tc.set_seccomp_filter(TRY(seccomp.add_chain(t.tid)));
  return {};
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

Result<DumpedCore> dump_core(const procfs::Procfs& proc, Process& p, const Answers& answers, SeccompTable& seccomp,
                             const procfs::UserMaps* users) {
  DumpedCore out;
  for (const auto& thread : p.threads) {
    auto& core = out.threads.emplace_back();
    auto& extra = out.extras.emplace_back();
    if (thread.exited) continue;
    std::optional<Answers> others;
    if (thread.tid != p.pid) others.emplace(TRY_CTX(ask_thread(p, thread), "pid ", p.pid));
    TRY_CTX(dump_thread(proc, p, thread, others ? *others : answers, core, extra, seccomp, users), "pid ", p.pid);
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
  TRY_CTX(answers.process->read(answers.batch, tc, out.mm), "pid ", p.pid);
  if (is_ia32(p))
    for (auto& action : *tc.mutable_sigactions()) action.set_compat_sigaction(true);
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
