// SPDX-License-Identifier: Apache-2.0
// ptrace(2) as values and errors. All stops are those of PTRACE_SEIZE: there is no
// SIGSTOP on attach, and PTRACE_INTERRUPT gives a PTRACE_EVENT_STOP.
#pragma once

#include <signal.h>
#include <sys/types.h>
#include <sys/user.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/base/result.h"

namespace stasis::kernel {

using Regs = user_regs_struct;

// What waitpid(2) said about one thread.
struct Stop {
  enum class Kind { kExited, kEvent, kSyscall, kSignal } kind = Kind::kExited;
  int signal = 0;  // kSignal: the signal; kEvent: SIGTRAP, or the stopping signal of a group stop
  int event = 0;   // kEvent: PTRACE_EVENT_*
  bool event_stop() const { return kind == Kind::kEvent && event == 128; }  // PTRACE_EVENT_STOP
};

Result<void> seize(pid_t tid, unsigned long options);
Result<void> interrupt(pid_t tid);
// Waits for the next stop or the end of `tid`. timeout_ms < 0: no limit. kTimeout otherwise.
Result<Stop> wait_stop(pid_t tid, int timeout_ms = -1);
// Waits for the end of every one of these killed tracees, in whatever order they end: the last
// thread of a pid namespace's init ends only when all others are reaped (zap_pid_ns_processes).
void reap(std::vector<pid_t> tids, int timeout_ms);
Result<void> cont(pid_t tid, int signal = 0);
Result<void> cont_to_syscall(pid_t tid);
Result<void> detach(pid_t tid, int signal = 0);
Result<void> set_options(pid_t tid, unsigned long options);

Result<Regs> get_regs(pid_t tid);
Result<void> set_regs(pid_t tid, const Regs& regs);
// NT_X86_XSTATE in the standard (non-compacted) layout; its length is the CPU's.
Result<std::vector<uint8_t>> get_xstate(pid_t tid);
Result<void> set_xstate(pid_t tid, const std::vector<uint8_t>& data);
Result<uint64_t> get_sigmask(pid_t tid);
Result<void> set_sigmask(pid_t tid, uint64_t mask);
// Pending signals in queue order; `shared`: those of the process instead of the thread.
Result<std::vector<siginfo_t>> peek_signals(pid_t tid, bool shared);

struct Rseq {
  uint64_t address = 0;  // 0: not registered
  uint32_t size = 0, signature = 0, flags = 0;
};
Result<Rseq> get_rseq(pid_t tid);
// Whether its system calls are turned into signals, prctl(PR_SET_SYSCALL_USER_DISPATCH); told since Linux 6.4.
bool dispatches_syscalls(pid_t tid);

struct SeccompFilter {
  std::vector<uint8_t> program;  // struct sock_filter[]
  uint64_t flags = 0;            // SECCOMP_FILTER_FLAG_*
};
// The chain of classic BPF filters, oldest first, as the kernel counts them
// (kernel/seccomp.c get_nth_filter()).
Result<std::vector<SeccompFilter>> get_seccomp_filters(pid_t tid);

}  // namespace stasis::kernel
