// SPDX-License-Identifier: Apache-2.0
// The one page that is injected into a task: a loop that executes an array of
// system calls and ends in int3. Also where x86-64 keeps a system call's parts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/kernel/ptrace.h"

namespace stasis::kernel {

// One entry of the array. The result is stored to *ret, an address in the task, so
// that the result of one call can become an argument of a later one.
struct RemoteCall {
  uint64_t nr;
  uint64_t args[6];
  uint64_t ret;
};
static_assert(sizeof(RemoteCall) == 64);

// The loop: rbx = next entry, r12 = how many. Its end depends on r13:
// 0: int3, for tasks that die with the engine anyway (restore).
// else: tkill(r13, r15), a signal that is ignored by default: a tracer sees it as a stop;
//   if the tracer is gone the task goes on to rt_sigreturn(2) with the frame at r14, which
//   puts back its own registers and mask. So a killed engine does not take the task with it.
std::span<const uint8_t> runner_code();
// Offsets from the start of the code: behind the int3, and behind the tkill.
constexpr uint64_t kEndByTrap = 51, kEndBySignal = 64;
constexpr uint64_t kRunnerSyscall = 27;  // the loop's own `syscall`
// A second loop behind it makes system calls of ia32, for tasks of 32-bit code: r14 = next entry, r12 = how many; int3.
constexpr uint64_t kIa32Loop = 74, kIa32End = 122;
constexpr uint64_t kRunnerInt80 = 101;  // its own `int $0x80`

struct RunnerEnd {
  pid_t tid = 0;  // in the task's pid namespace; 0: end by int3
  int signal = 0;
  uint64_t frame = 0;  // address of a SignalFrame
};
// Sets up `regs` to run `count` entries at `calls` by the code at `code`.
void aim_runner(Regs& regs, uint64_t code, uint64_t calls, uint64_t count, const RunnerEnd& end);
void aim_ia32_runner(Regs& regs, uint64_t code, uint64_t calls, uint64_t count);

// The bytes that rt_sigreturn(2) expects at rsp to bring back these registers, mask and
// NT_X86_XSTATE, when they lie at `address` (64-byte aligned). arch/x86/include/asm/sigframe.h.
std::vector<uint8_t> signal_frame(const Regs& regs, uint64_t sigmask, const std::vector<uint8_t>& xstate,
                                  uint64_t address);
// Sets up `regs` to make one system call at a `syscall` instruction.
void aim_syscall(Regs& regs, uint64_t instruction, uint64_t nr, std::span<const uint64_t> args);

// x86-64 `syscall`: 0f 05.
constexpr uint8_t kSyscallInsn[2] = {0x0f, 0x05};

// If the task was inside an interruptible system call, rewinds it so that it is made
// again after restore, as the kernel's own restart would (arch/x86/kernel/signal.c).
void rewind_interrupted_syscall(Regs& regs);
// The -ERESTART* code of such a call, 0 if there is none.
int64_t restart_code(const Regs& regs);
bool is_restart_code(int64_t result);
constexpr int64_t kRestartNoHandler = -514;  // made again, unless a handler runs: that one makes it EINTR
constexpr int64_t kRestartBlock = -516;      // the same, by restart_syscall(2), which knows when it ends
constexpr uint64_t kRestartSyscall = 219;
// The other way round: `regs` stand before a call, and become those of one that was interrupted.
void as_interrupted(Regs& regs, int64_t code);
// Calls that end with EINTR whatever interrupts them, a stop by us too: they are made again instead. False if `regs`
// are not of such a call.
bool restart_cut_short(Regs& regs);

}  // namespace stasis::kernel
