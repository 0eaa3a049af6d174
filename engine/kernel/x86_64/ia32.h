// SPDX-License-Identifier: Apache-2.0
// 32-bit code on a 64-bit kernel: told by the code segment, nothing else. Its system calls have numbers and structures
// of their own (arch/x86/entry/syscalls/syscall_32.tbl), made by `int $0x80`; 64-bit code can make them too, as long as
// all that they point to lies below 4 GiB. Such a task is driven in 64-bit mode: its code segment is another meanwhile.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/kernel/ptrace.h"
#include "engine/kernel/syscalls.h"

namespace stasis::kernel {

constexpr uint64_t kCodeSegment = 0x33, kCodeSegment32 = 0x23;  // arch/x86/include/asm/segment.h __USER_CS, __USER32_CS
constexpr uint64_t kStackSegment = 0x2b;
constexpr uint64_t kSpace32 = uint64_t{1} << 32;

inline bool is_ia32(const Regs& regs) { return regs.cs == kCodeSegment32; }

constexpr uint8_t kInt80Insn[2] = {0xcd, 0x80};
// Numbers of ia32 that the engine needs itself.
constexpr long kIa32Exit = 1, kIa32Getpid = 20, kIa32Munmap = 91, kIa32RtSigaction = 174, kIa32Mmap2 = 192,
               kIa32Openat = 295, kIa32SetRobustList = 311, kIa32GetRobustList = 312;

// Sets up `regs` of a thread of 32-bit code to make one call at an `int $0x80`, still in 32-bit mode.
void aim_int80(Regs& regs, uint64_t instruction, uint64_t nr, std::span<const uint64_t> args);

// Calls that wait and have a time limit, or end with EINTR whatever interrupts them.
enum class Ia32Call : uint8_t {
  kOther,
  kRestart,
  kNanosleep,
  kClockNanosleep,
  kClockNanosleep64,
  kFutex,
  kFutex64,
  kPoll,
  kCutShort
};
Ia32Call ia32_call(const Regs& regs);

// struct compat_sigaction of rt_sigaction.
struct Ia32Sigaction {
  uint32_t handler, flags, restorer, mask[2];
};
constexpr uint32_t kIa32RobustListSize = 12;  // struct compat_robust_list_head
// get_robust_list of another thread, made by ourselves.
Result<RobustList> get_ia32_robust_list(pid_t tid);

// getpid(2), which faults where the kernel runs no 32-bit code.
void call_ia32_getpid();
// The vDSO of 32-bit code at `at`, for a task that has none.
bool map_ia32_vdso(uint64_t at);
// Tries a call in a child.
bool runs_ia32();

// openat(2) as 32-bit code makes it: without O_LARGEFILE, which the kernel adds to every other.
Result<Fd> open_as_ia32(int dirfd, const std::string& path, int flags);

// Slots of the descriptor table that 32-bit code has its thread-local storage in, set_thread_area(2).
constexpr uint32_t kFirstTlsSlot = 12, kTlsSlots = 3;
struct TlsSlot {  // struct user_desc
  uint32_t number, base, limit;
  uint32_t seg_32bit : 1, contents : 2, read_exec_only : 1, limit_in_pages : 1, not_present : 1, useable : 1, lm : 1;
  uint32_t : 24;
};
static_assert(sizeof(TlsSlot) == 16);
// Those that are in use; none where the kernel runs no 32-bit code.
Result<std::vector<TlsSlot>> get_tls_slots(pid_t tid);
Result<void> set_tls_slot(pid_t tid, const TlsSlot& slot);

}  // namespace stasis::kernel
