// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/restore_core.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"
#include "engine/kernel/x86_64/ia32.h"
#include "engine/memory/keys.h"
#include "engine/tasks/fpu.h"
#include "engine/tasks/labels.h"
#include "engine/tasks/pid_taken.h"
#include "engine/tasks/restore_creds.h"
#include "engine/tasks/seccomp.h"
#include "engine/tasks/switches.h"
#include "engine/tasks/timers.h"

namespace stasis::tasks {
namespace {

using remote::Batch;

constexpr uint64_t kAllButTrap = ~(uint64_t{1} << (SIGTRAP - 1));

// The host tid of each thread of the image, by the last number of its NSpid line.
Result<void> find_tids(const procfs::Procfs& proc, Driven& d) {
  std::map<uint32_t, pid_t> by_ns_tid;
  const pid_t pid = d.tids.front();
  for (pid_t tid : TRY(proc.threads(pid))) {
    const auto status = TRY(proc.thread_status(pid, tid));
    if (!status.ns_pid.empty()) by_ns_tid[static_cast<uint32_t>(status.ns_pid.back())] = tid;
  }
  for (uint32_t tid : d.image->tids) {
    if (tid == d.image->node.pid()) continue;
    const auto at = by_ns_tid.find(tid);
    if (at == by_ns_tid.end()) return fail(Code::kRestoreFailed, cat("thread ", tid, " was not created"));
    d.tids.push_back(at->second);
  }
  return {};
}

itimerval timer_value(const pb::itimer_entry& e) {
  itimerval value{{static_cast<time_t>(e.isec()), static_cast<suseconds_t>(e.iusec())},
                  {static_cast<time_t>(e.vsec()), static_cast<suseconds_t>(e.vusec())}};
  // A periodic ITIMER_REAL rests from its expiry until its SIGALRM is taken (kernel/signal.c,
  // dequeue_signal): no time is left then, and setting that would take the interval away too.
  if (value.it_value.tv_sec == 0 && value.it_value.tv_usec == 0) value.it_value = value.it_interval;
  return value;
}

// Set by the task itself: for another user's task prlimit(2) wants CAP_SYS_RESOURCE.
Result<void> restore_limits(Driven& d) {
  const auto& wanted = d.image->tc().rlimits().rlimits();
  const int count = std::min(wanted.size(), static_cast<int>(RLIM_NLIMITS));
  Batch set;
  for (int which = 0; which < count; ++which)
    set.add(__NR_prlimit64, 0, which, set.put(rlimit{wanted[which].cur(), wanted[which].max()}), 0);
  TRY(d.runner.run(set));
  Batch again;
  for (int which = 0; which < count; ++which) {
    if (!set.failed(static_cast<size_t>(which))) continue;
    const std::string name = cat("pid ", d.image->node.pid(), ": resource limit ", which, " of ", wanted[which].cur());
    if (set.result(static_cast<size_t>(which)) != -EPERM) return fail(Code::kImageCorrupt, cat(name, " is not valid"));
    // Root of a user namespace may not raise a hard limit; the engine may, if it has CAP_SYS_RESOURCE.
    const rlimit whole{wanted[which].cur(), wanted[which].max()};
    if (::prlimit(d.tids.front(), static_cast<__rlimit_resource>(which), &whole, nullptr) == 0) continue;
    // Without CAP_SYS_RESOURCE a hard limit only goes down. The soft one is what acts.
    Batch look;
    const auto at = look.space(sizeof(rlimit));
    look.add(__NR_prlimit64, 0, which, 0, at);
    look.must("prlimit64");
    TRY(d.runner.run_checked(look));
    const auto now = look.get<rlimit>(at);
    if (wanted[which].cur() > now.rlim_max)
      return fail(Error(Code::kRlimit, cat(name, " cannot be set: the most here is ", now.rlim_max)).about(name));
    log::warning(name, ": the hard limit stays at ", now.rlim_max, " instead of ", wanted[which].max(), ", ignoring");
    again.add(__NR_prlimit64, 0, which, again.put(rlimit{wanted[which].cur(), now.rlim_max}), 0);
    again.must("prlimit64");
  }
  return d.runner.run_checked(again);
}

Result<void> restore_scheduling(pid_t tid, const pb::thread_core_entry& core, const pb::task_extra* extra) {
  const std::string name = cat("pid ", tid);
  if (core.has_sched_policy()) {
    const uint32_t policy = core.sched_policy();
    sched_param param{};
    param.sched_priority = static_cast<int>(core.sched_prio());
    const bool real_time = policy == SCHED_FIFO || policy == SCHED_RR;
    if (!real_time) param.sched_priority = 0;
    if (policy == SCHED_DEADLINE && extra && extra->more().has_deadline()) return {};  // restore_outer_switches
    if (policy > SCHED_IDLE) return fail(Code::kImageCorrupt, cat("scheduling policy ", policy));
    if ((real_time || policy != SCHED_OTHER) && ::sched_setscheduler(tid, static_cast<int>(policy), &param) < 0)
      return fail_sys("sched_setscheduler", name);
    if (!real_time && ::setpriority(PRIO_PROCESS, static_cast<id_t>(tid), core.sched_nice()) < 0)
      return fail_sys("setpriority", name);
  }
  if (!extra) return {};
  // The machine may have other processors now; then the mask means nothing any more.
  if (extra->has_cpu_affinity() && !kernel::set_affinity(tid, extra->cpu_affinity()))
    log::warning(name, ": CPU affinity cannot be set, ignoring");
  if (extra->has_ioprio() && extra->ioprio() != 0 && !kernel::set_ioprio(tid, extra->ioprio()))
    log::warning(name, ": I/O priority ", extra->ioprio(), " cannot be set, ignoring");
  return {};
}

// What every thread sets for itself and needs no privilege.
void add_thread_state(Batch& batch, const pb::core_entry& core, const pb::task_extra* extra, bool leader) {
  const auto& t = core.thread_core();
  batch.add(__NR_set_tid_address, core.thread_info().clear_tid_addr());
  if (t.futex_rla() && core.thread_info().gpregs().mode() != pb::COMPAT) {
    batch.add(__NR_set_robust_list, t.futex_rla(), t.futex_rla_len());
    batch.must("set_robust_list");
  }
  if (t.has_sas() && !(t.sas().ss_flags() & SS_DISABLE)) {
    struct {
      uint64_t sp;
      uint32_t flags, pad;
      uint64_t size;
    } ss{t.sas().ss_sp(), t.sas().ss_flags() & ~uint32_t{SS_ONSTACK}, 0, t.sas().ss_size()};
    batch.add(__NR_sigaltstack, batch.put(ss), 0);
    batch.must("sigaltstack");
  }
  if (t.has_rseq_entry() && t.rseq_entry().rseq_abi_pointer()) {
    batch.add(__NR_rseq, t.rseq_entry().rseq_abi_pointer(), t.rseq_entry().rseq_abi_size(), 0,
              t.rseq_entry().signature());
    batch.must("rseq");
  }
  const std::string comm = t.has_comm() ? t.comm() : leader ? core.tc().comm() : std::string();
  if (!comm.empty()) batch.add(__NR_prctl, PR_SET_NAME, batch.text(comm.substr(0, 15)));
  if (extra && extra->has_timer_slack_ns()) batch.add(__NR_prctl, PR_SET_TIMERSLACK, extra->timer_slack_ns());
  if (extra) add_switches(batch, *extra, leader);
}

// What only a call of 32-bit code sets.
Result<void> restore_ia32_state(Driven& d, size_t i) {
  const auto& core = d.image->threads[i];
  for (const auto& e : core.thread_info().tls()) {
    const kernel::TlsSlot slot{.number = e.entry_number(),
                               .base = e.base_addr(),
                               .limit = e.limit(),
                               .seg_32bit = e.seg_32bit(),
                               .contents = static_cast<uint32_t>(e.contents_h() << 1 | e.contents_l()) & 3,
                               .read_exec_only = e.read_exec_only(),
                               .limit_in_pages = e.limit_in_pages(),
                               .not_present = e.seg_not_present(),
                               .useable = e.usable(),
                               .lm = 0};
    TRY_CTX(kernel::set_tls_slot(d.tids[i], slot), "slot ", slot.number, " of the descriptor table");
  }
  if (!d.image->ia32 || core.thread_core().futex_rla() == 0) return {};
  Batch batch;
  batch.make_ia32();
  batch.add(kernel::kIa32SetRobustList, core.thread_core().futex_rla(), kernel::kIa32RobustListSize);
  batch.must("32-bit set_robust_list");
  return d.runner.run_checked(batch, d.tids[i]);
}

// In 32-bit code the base of a segment is what its descriptor says; CRIU's images do not have it besides.
void aim_ia32(const pb::thread_info_x86& info, kernel::Regs& regs) {
  regs.cs = kernel::kCodeSegment32, regs.ss = kernel::kStackSegment;
  for (const auto& e : info.tls()) {
    if (regs.fs >> 3 == e.entry_number()) regs.fs_base = e.base_addr();
    if (regs.gs >> 3 == e.entry_number()) regs.gs_base = e.base_addr();
  }
}

// Linux 5.14 to 6.1 did not take PKRU from ptrace(2) at first.
Result<void> check_key_rights(pid_t tid, const std::vector<uint8_t>& wanted) {
  if (key_rights(TRY(kernel::get_xstate(tid))) == key_rights(wanted)) return {};
  return fail(Code::kKernelFeature, cat("pid ", tid,
                                        ": this kernel does not take what a thread may do with memory "
                                        "protection keys (PKRU) from a tracer"));
}

Result<void> fill_floating_point(pid_t tid, const pb::core_entry& core, const pb::task_extra* extra, bool keys) {
  auto now = TRY(kernel::get_xstate(tid));
  // The raw copy is exact, if this CPU lays its state out the same way.
  if (extra && extra->has_xstate() && extra->xstate().size() == now.size()) {
    std::vector<uint8_t> raw(extra->xstate().begin(), extra->xstate().end());
    if (kernel::set_xstate(tid, raw)) return keys ? check_key_rights(tid, raw) : Result<void>();
  }
  TRY(fill_xstate(core.thread_info().fpregs(), now));
  TRY(kernel::set_xstate(tid, now));
  return keys ? check_key_rights(tid, now) : Result<void>();
}

kernel::Regs image_regs(const pb::user_x86_regs_entry& r, const kernel::Regs& now) {
  kernel::Regs regs = now;
  regs.r15 = r.r15(), regs.r14 = r.r14(), regs.r13 = r.r13(), regs.r12 = r.r12();
  regs.rbp = r.bp(), regs.rbx = r.bx(), regs.r11 = r.r11(), regs.r10 = r.r10();
  regs.r9 = r.r9(), regs.r8 = r.r8(), regs.rax = r.ax(), regs.rcx = r.cx();
  regs.rdx = r.dx(), regs.rsi = r.si(), regs.rdi = r.di();
  // The call was rewound when it was dumped: nothing may be restarted on top of that.
  regs.orig_rax = static_cast<uint64_t>(-1);
  regs.rip = r.ip(), regs.rsp = r.sp(), regs.eflags = r.flags();
  regs.fs_base = r.fs_base(), regs.gs_base = r.gs_base();
  regs.ds = r.ds(), regs.es = r.es(), regs.fs = r.fs(), regs.gs = r.gs();
  return regs;
}

// CRIU leaves a call that was interrupted as the kernel shows it to a tracer.
void rewind_foreign(kernel::Regs& regs, uint64_t orig_ax) {
  regs.orig_rax = orig_ax;
  kernel::rewind_interrupted_syscall(regs);
  regs.orig_rax = static_cast<uint64_t>(-1);
}

// A call that was interrupted is so again: whether it goes on or ends with EINTR, because a handler runs, is decided
// by the kernel, and a sleep ends when it should.
void interrupt_again(const Driven& d, size_t i, kernel::Regs& regs) {
  if (!d.image->extras[i]) return;
  const int64_t code = d.image->extras[i]->more().restart();
  if (!kernel::is_restart_code(code)) return;
  const auto slept = d.slept.find(i);
  if (code == kernel::kRestartBlock && slept == d.slept.end()) return;
  kernel::as_interrupted(regs, slept == d.slept.end() ? code : slept->second);
}

bool has_exited(const Driven& d, size_t i) {
  return i == 0 && d.tids.size() > 1 && d.image->extras[0] && d.image->extras[0]->exited();
}

// It ends by itself when it is let go: a leader that ended while it is traced could not be reaped by its parent as
// long as the tracer lives.
Result<void> make_end(const Driven& d, pid_t tid) {
  auto regs = TRY(kernel::get_regs(tid));
  regs.orig_rax = static_cast<uint64_t>(-1);
  if (d.image->ia32) regs.cs = kernel::kCodeSegment32;
  const uint64_t at = TRY(remote::find_syscall_instruction(tid, regs));
  const uint64_t code = d.image->extras[0]->more().exit_code() >> 8 & 0xff;
  if (d.image->ia32)
    kernel::aim_int80(regs, at, kernel::kIa32Exit, {&code, 1});
  else
    kernel::aim_syscall(regs, at, __NR_exit, {&code, 1});
  TRY_CTX(kernel::set_regs(tid, regs), "registers");
  return kernel::set_sigmask(tid, ~uint64_t{0});
}

}  // namespace

Result<void> create_threads(const procfs::Procfs& proc, Driven& d) {
  std::vector<pid_t> wanted;
  for (uint32_t tid : d.image->node.threads())
    if (tid != d.image->node.pid()) wanted.push_back(static_cast<pid_t>(tid));
  if (wanted.empty()) return {};
  constexpr size_t kPerBatch = 256;
  for (size_t first = 0; first < wanted.size(); first += kPerBatch) {
    Batch batch;
    for (size_t i = first; i < std::min(first + kPerBatch, wanted.size()); ++i) {
      kernel::CloneArgs args{};
      // CLONE_PTRACE: born attached to our tracer and stopped before its first instruction.
      args.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_PTRACE;
      args.set_tid_size = 1;
      const auto tid = batch.put(wanted[i]);
      const auto at = batch.put(args);
      batch.point(at, offsetof(kernel::CloneArgs, set_tid), tid);
      batch.add(__NR_clone3, at, sizeof(args));
    }
    TRY(d.runner.run(batch));
    for (size_t i = 0; i < batch.size(); ++i) {
      const pid_t tid = wanted[first + i];
      if (batch.result(i) ==
          -EEXIST)  // as the task sees the number, which is ours unless it has a namespace of its own
        return fail(pid_taken(d.tids[0] == static_cast<pid_t>(d.image->node.pid()) ? proc.fd() : -1, tid));
      if (batch.failed(i)) {
        errno = static_cast<int>(-batch.result(i));
        return fail_sys("clone3 of thread", cat(tid));
      }
    }
  }
  TRY(find_tids(proc, d));
  for (size_t i = 1; i < d.tids.size(); ++i) {
    const auto stop = TRY(kernel::wait_stop(d.tids[i]));
    if (!stop.event_stop()) return fail(Code::kInternal, cat("thread ", d.tids[i], " did not start with a stop"));
    TRY(kernel::set_sigmask(d.tids[i], kAllButTrap));
  }
  return {};
}

Result<void> restore_thread_dirs(Driven& d, const std::map<uint32_t, int>& files) {
  for (size_t i = 1; i < d.tids.size(); ++i) {
    const auto* extra = d.image->extras[i];
    if (!extra || !extra->has_cwd_id()) continue;
    Batch batch;
    auto must = [&](const char* what) { batch.must(cat(what, " of thread ", d.image->tids[i])); };
    batch.add(__NR_unshare, CLONE_FS), must("unshare(CLONE_FS)");
    batch.add(__NR_fchdir, files.at(extra->root_id())), must("fchdir to the root");
    batch.add(__NR_chroot, batch.data(".", 2)), must("chroot");
    batch.add(__NR_fchdir, files.at(extra->cwd_id())), must("fchdir to the cwd");
    batch.add(__NR_umask, extra->umask() & 0777);
    TRY(d.runner.run_checked(batch, d.tids[i]));
  }
  return {};
}

Result<void> restore_from_outside(const procfs::Procfs& proc, Driven& d) {
  for (size_t i = 0; i < d.tids.size(); ++i) {
    TRY(restore_scheduling(d.tids[i], d.image->threads[i].thread_core(), d.image->extras[i]));
    if (d.image->extras[i]) TRY(restore_outer_switches(proc, d.tids[i], *d.image->extras[i], i == 0));
  }
  if (d.image->tc().has_oom_score_adj()) {
    const std::string path = cat(d.tids[0], "/oom_score_adj");
    const auto now = read_file_at(proc.fd(), path);
    const int32_t wanted = d.image->tc().oom_score_adj();
    if (!now || parse_int<int32_t>(trim(*now)).value_or(wanted + 1) != wanted)
      if (auto r = write_file_at(proc.fd(), path, cat(wanted)); !r)
        log::warning("pid ", d.tids[0], ": oom_score_adj cannot be set to ", wanted, ": ", r.error().message(),
                     ", ignoring");
  }
  return {};
}

Result<void> open_labels(const procfs::Procfs& proc, Driven& d, int proc_in_task) {
  for (size_t i = 0; i < d.tids.size(); ++i)
    d.labels.push_back(TRY(LabelOrders::open(proc, d.runner, d.tids[i], proc_in_task,
                                             d.image->threads[i].thread_core().creds(), d.image->extras[i])));
  return {};
}

Result<void> restore_threads(Driven& d, const pb::seccomp_entry& seccomp) {
  for (size_t i = d.tids.size(); i-- > 0;) {
    const auto& core = d.image->threads[i];
    const bool leader = i == 0;
    TRY(restore_ia32_state(d, i));
    Batch batch;
    add_thread_state(batch, core, d.image->extras[i], leader);
    if (leader) {
      const auto& tc = core.tc();
      batch.add(__NR_personality, tc.personality());
      batch.must("personality");
      if (tc.has_timers())
        for (auto [which, value] : {std::pair{ITIMER_REAL, &tc.timers().real()},
                                    {ITIMER_VIRTUAL, &tc.timers().virt()},
                                    {ITIMER_PROF, &tc.timers().prof()}}) {
          batch.add(__NR_setitimer, which, batch.put(timer_value(*value)), 0);
          batch.must("setitimer");
        }
      TRY(arm_posix_timers(d));
      batch.add(__NR_prctl, PR_SET_CHILD_SUBREAPER, tc.child_subreaper() ? 1 : 0);
      add_barriers(batch, tc.membarrier_registration_mask());
      // As late as this, so that RLIMIT_AS, RLIMIT_NPROC and the like do not stop us.
      TRY(restore_limits(d));
    }
    const auto& t = core.thread_core();
    const auto mode = t.has_seccomp_mode() ? t.seccomp_mode() : pb::disabled;
    const bool no_new_privs = t.creds().no_new_privs() != 0;
    // With CAP_SYS_ADMIN, which a stub has, filters need no no_new_privs.
    if (mode == pb::filter) add_seccomp_filters(batch, seccomp, t.seccomp_filter());
    if (mode == pb::strict) {
      batch.add(__NR_prctl, PR_SET_SECCOMP, 1);
      batch.must("prctl(PR_SET_SECCOMP)");
    }
    if (d.as_client)
      drop_capabilities(batch);
    else
      TRY(add_creds(batch, t.creds(), d.image->extras[i], d.setgroups));
    d.labels[i].add(batch);
    if (no_new_privs) {
      batch.add(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      batch.must("prctl(PR_SET_NO_NEW_PRIVS)");
    }
    // Changing credentials clears both of these.
    batch.add(__NR_prctl, PR_SET_PDEATHSIG, t.pdeath_sig());
    batch.must("prctl(PR_SET_PDEATHSIG)");
    if (leader && d.image->mm.dumpable() < 2) {
      batch.add(__NR_prctl, PR_SET_DUMPABLE, d.image->mm.dumpable());
      batch.must("prctl(PR_SET_DUMPABLE)");
    }
    TRY(d.runner.run_checked(batch, d.tids[i]));
  }
  return {};
}

Result<void> leave(Driven& d, int pool_base, uint64_t arena_begin, uint64_t arena_end) {
  Batch batch;
  batch.add(__NR_close_range, pool_base, ~0u, 0);
  batch.must("close_range");
  TRY(d.runner.run_checked(batch));
  const uint64_t insn = d.runner.code() + kernel::kRunnerSyscall;
  const uint64_t args[] = {arena_begin, arena_end - arena_begin};
  const int64_t r = TRY(remote::classic_syscall(d.tids[0], insn, __NR_munmap, args));
  if (r != 0) return fail(Code::kInternal, cat("munmap of the arena in pid ", d.tids[0], ": error ", -r));
  return {};
}

Result<void> restore_registers(Driven& d) {
  for (size_t i = 0; i < d.tids.size(); ++i) {
    const pid_t tid = d.tids[i];
    // Only at such a stop does the kernel take the registers as they are, without restart logic.
    TRY(remote::to_event_stop(tid));
    const auto& core = d.image->threads[i];
    if (has_exited(d, i)) {
      TRY(make_end(d, tid));
      continue;
    }
    auto regs = image_regs(core.thread_info().gpregs(), TRY(kernel::get_regs(tid)));
    if (d.image->ia32) aim_ia32(core.thread_info(), regs);
    rewind_foreign(regs, core.thread_info().gpregs().orig_ax());
    interrupt_again(d, i, regs);
    const bool keys = has_protection_keys() && memory::has_keys(*d.image);
    TRY(fill_floating_point(tid, core, d.image->extras[i], keys));
    TRY_CTX(kernel::set_regs(tid, regs), "registers");
    const auto& t = core.thread_core();
    TRY(kernel::set_sigmask(tid, t.has_blk_sigset() ? t.blk_sigset() : d.image->tc().blk_sigset()));
  }
  return {};
}

}  // namespace stasis::tasks
