// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/x86_64/runner.h"

#include <sys/syscall.h>

#include <cerrno>
#include <cstring>

#include "engine/kernel/x86_64/ia32.h"

namespace stasis::kernel {
namespace {

constexpr uint8_t kCode[] = {
    0x48, 0x8b, 0x03,           // loop: mov rax, [rbx]
    0x48, 0x8b, 0x7b, 0x08,     //       mov rdi, [rbx+8]
    0x48, 0x8b, 0x73, 0x10,     //       mov rsi, [rbx+16]
    0x48, 0x8b, 0x53, 0x18,     //       mov rdx, [rbx+24]
    0x4c, 0x8b, 0x53, 0x20,     //       mov r10, [rbx+32]
    0x4c, 0x8b, 0x43, 0x28,     //       mov r8, [rbx+40]
    0x4c, 0x8b, 0x4b, 0x30,     //       mov r9, [rbx+48]
    0x0f, 0x05,                 //       syscall
    0x48, 0x8b, 0x4b, 0x38,     //       mov rcx, [rbx+56]
    0x48, 0x89, 0x01,           //       mov [rcx], rax
    0x48, 0x83, 0xc3, 0x40,     //       add rbx, 64
    0x49, 0xff, 0xcc,           //       dec r12
    0x75, 0xd3,                 //       jnz loop
    0x4d, 0x85, 0xed,           //       test r13, r13
    0x75, 0x01,                 //       jnz signal
    0xcc,                       //       int3
    0xb8, 0xc8, 0,    0,    0,  // signal: mov eax, 200 (tkill)
    0x4c, 0x89, 0xef,           //       mov rdi, r13
    0x4c, 0x89, 0xfe,           //       mov rsi, r15
    0x0f, 0x05,                 //       syscall
    0x4c, 0x89, 0xf4,           //       mov rsp, r14
    0xb8, 0x0f, 0,    0,    0,  //       mov eax, 15 (rt_sigreturn)
    0x0f, 0x05,                 //       syscall
    0x41, 0x8b, 0x06,           // ia32: mov eax, [r14]
    0x41, 0x8b, 0x5e, 0x08,     //       mov ebx, [r14+8]
    0x41, 0x8b, 0x4e, 0x10,     //       mov ecx, [r14+16]
    0x41, 0x8b, 0x56, 0x18,     //       mov edx, [r14+24]
    0x41, 0x8b, 0x76, 0x20,     //       mov esi, [r14+32]
    0x41, 0x8b, 0x7e, 0x28,     //       mov edi, [r14+40]
    0x41, 0x8b, 0x6e, 0x30,     //       mov ebp, [r14+48]
    0xcd, 0x80,                 //       int 0x80
    0x48, 0x98,                 //       cdqe
    0x49, 0x8b, 0x4e, 0x38,     //       mov rcx, [r14+56]
    0x48, 0x89, 0x01,           //       mov [rcx], rax
    0x49, 0x83, 0xc6, 0x40,     //       add r14, 64
    0x49, 0xff, 0xcc,           //       dec r12
    0x75, 0xd1,                 //       jnz ia32
    0xcc,                       //       int3
};
static_assert(sizeof(kCode) == kIa32End && kCode[kRunnerInt80] == 0xcd);

// include/linux/errno.h: never seen by user space, but by a tracer.
constexpr int64_t kErestartsys = -512, kErestartnointr = -513;

// What the runner needs is of 64-bit code; the data segments mean nothing to it.
void to_native(Regs& regs) {
  if (is_ia32(regs)) regs.cs = kCodeSegment;
}

// 32-bit code has 32 bits of each.
int64_t signed_value(const Regs& regs, uint64_t value) {
  return is_ia32(regs) ? static_cast<int32_t>(value) : static_cast<int64_t>(value);
}

}  // namespace

std::span<const uint8_t> runner_code() { return kCode; }

void aim_runner(Regs& regs, uint64_t code, uint64_t calls, uint64_t count, const RunnerEnd& end) {
  to_native(regs);
  regs.rip = code;
  regs.rbx = calls;
  regs.r12 = count;
  regs.r13 = static_cast<uint64_t>(end.tid);
  regs.r14 = end.frame;
  regs.r15 = static_cast<uint64_t>(end.signal);
  regs.rax = 0;
  regs.orig_rax = static_cast<uint64_t>(-1);  // not in a system call: no restart logic on resume
  regs.eflags &= ~uint64_t{0x10500};          // no resume, direction or trap flag
}

void aim_ia32_runner(Regs& regs, uint64_t code, uint64_t calls, uint64_t count) {
  aim_runner(regs, code + kIa32Loop, 0, count, {});
  regs.r14 = calls;
}

void aim_syscall(Regs& regs, uint64_t instruction, uint64_t nr, std::span<const uint64_t> args) {
  auto arg = [&](size_t i) { return i < args.size() ? args[i] : 0; };
  to_native(regs);
  regs.rip = instruction;
  regs.rax = nr;
  regs.rdi = arg(0);
  regs.rsi = arg(1);
  regs.rdx = arg(2);
  regs.r10 = arg(3);
  regs.r8 = arg(4);
  regs.r9 = arg(5);
  regs.orig_rax = static_cast<uint64_t>(-1);
  regs.eflags &= ~uint64_t{0x10500};
}

std::vector<uint8_t> signal_frame(const Regs& r, uint64_t sigmask, const std::vector<uint8_t>& xstate,
                                  uint64_t address) {
  struct Frame {  // struct ucontext of the kernel, from uc_flags on
    uint64_t flags, link, stack_sp, stack_flags, stack_size;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15, di, si, bp, bx, dx, ax, cx, sp, ip, eflags;
    uint16_t cs, gs, fs, ss;
    uint64_t err, trapno, oldmask, cr2, fpstate, reserved[8];
    uint64_t sigmask;
    uint64_t pad[2];
  } f{};
  static_assert(sizeof(Frame) == 320);
  f.flags = 7;  // UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
  // Flags that sigaltstack(2) does not know: the kernel then leaves the alternate stack alone.
  f.stack_flags = 0x7fffffff;
  f.r8 = r.r8, f.r9 = r.r9, f.r10 = r.r10, f.r11 = r.r11, f.r12 = r.r12, f.r13 = r.r13, f.r14 = r.r14, f.r15 = r.r15;
  f.di = r.rdi, f.si = r.rsi, f.bp = r.rbp, f.bx = r.rbx, f.dx = r.rdx, f.ax = r.rax, f.cx = r.rcx, f.sp = r.rsp;
  f.ip = r.rip, f.eflags = r.eflags;
  f.cs = static_cast<uint16_t>(r.cs), f.ss = static_cast<uint16_t>(r.ss);
  f.fpstate = address + sizeof(Frame);
  f.sigmask = sigmask;
  std::vector<uint8_t> out(sizeof(Frame) + xstate.size() + 4);
  std::memcpy(out.data(), &f, sizeof(f));
  std::memcpy(out.data() + sizeof(f), xstate.data(), xstate.size());
  // struct _fpx_sw_bytes at byte 464 of the FXSAVE area; ptrace(2) keeps XCR0 there.
  struct {
    uint32_t magic1, extended_size;
    uint64_t features;
    uint32_t size, pad[7];
  } sw{0x46505853, static_cast<uint32_t>(xstate.size() + 4), 0, static_cast<uint32_t>(xstate.size()), {}};
  std::memcpy(&sw.features, xstate.data() + 464, 8);
  std::memcpy(out.data() + sizeof(f) + 464, &sw, sizeof(sw));
  const uint32_t magic2 = 0x46505845;
  std::memcpy(out.data() + out.size() - 4, &magic2, 4);
  return out;
}

bool is_restart_code(int64_t result) {
  return result == kErestartsys || result == kErestartnointr || result == kRestartNoHandler || result == kRestartBlock;
}

int64_t restart_code(const Regs& regs) {
  const int64_t result = signed_value(regs, regs.rax);
  return signed_value(regs, regs.orig_rax) >= 0 && is_restart_code(result) ? result : 0;
}

// What a restart block holds besides (when a sleep ends) is carried elsewhere, engine/tasks/sleeps.h.
void rewind_interrupted_syscall(Regs& regs) {
  if (restart_code(regs) == 0) return;
  regs.rax = regs.orig_rax;
  regs.rip -= 2;
}

void as_interrupted(Regs& regs, int64_t code) {
  regs.orig_rax = regs.rax;
  regs.rip += 2;
  regs.rax = static_cast<uint64_t>(code);
}

namespace {

bool is_cut_short(const Regs& regs) {
  if (is_ia32(regs)) return ia32_call(regs) == Ia32Call::kCutShort;
  switch (static_cast<int64_t>(regs.orig_rax)) {
    case __NR_epoll_wait:
    case __NR_epoll_pwait:
    case __NR_epoll_pwait2:
    case __NR_rt_sigtimedwait:
    case __NR_semop:
    case __NR_semtimedop:
    case __NR_io_getevents:
    case __NR_io_pgetevents: return true;
    default: return false;
  }
}

}  // namespace

bool restart_cut_short(Regs& regs) {
  if (signed_value(regs, regs.rax) != -EINTR || !is_cut_short(regs)) return false;
  regs.rax = static_cast<uint64_t>(kRestartNoHandler);
  return true;
}

}  // namespace stasis::kernel
