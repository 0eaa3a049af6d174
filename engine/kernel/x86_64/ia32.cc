// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/x86_64/ia32.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace stasis::kernel {
namespace {

constexpr int kPtraceGetThreadArea = 25, kPtraceSetThreadArea = 26;  // arch/x86/include/uapi/asm/ptrace-abi.h

constexpr int kLargeFile = 0100000;     // O_LARGEFILE, which is 0 for us
constexpr int kArchMapVdso32 = 0x2002;  // arch/x86/include/uapi/asm/prctl.h ARCH_MAP_VDSO_32

constexpr int kIpcSemop = 1, kIpcSemtimedop = 4;  // include/uapi/linux/ipc.h, first argument of ipc(2)

// Older kernels do not keep r8 to r11.
int64_t int80(long nr, uint64_t a, uint64_t b, uint64_t c) {
  int32_t result;
  asm volatile("int $0x80" : "=a"(result) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
  return result;
}

}  // namespace

void aim_int80(Regs& regs, uint64_t instruction, uint64_t nr, std::span<const uint64_t> args) {
  auto arg = [&](size_t i) { return i < args.size() ? args[i] & 0xffffffff : 0; };
  regs.rip = instruction;
  regs.cs = kCodeSegment32;
  regs.rax = nr;
  regs.rbx = arg(0);
  regs.rcx = arg(1);
  regs.rdx = arg(2);
  regs.rsi = arg(3);
  regs.rdi = arg(4);
  regs.rbp = arg(5);
  regs.orig_rax = static_cast<uint64_t>(-1);
  regs.eflags &= ~uint64_t{0x10500};
}

Ia32Call ia32_call(const Regs& regs) {
  switch (static_cast<int32_t>(regs.orig_rax)) {
    case 0: return Ia32Call::kRestart;
    case 162: return Ia32Call::kNanosleep;
    case 267: return Ia32Call::kClockNanosleep;
    case 407: return Ia32Call::kClockNanosleep64;
    case 240: return Ia32Call::kFutex;
    case 422: return Ia32Call::kFutex64;
    case 168: return Ia32Call::kPoll;
    case 117: {  // ipc
      const auto which = regs.rbx & 0xffff;
      return which == kIpcSemop || which == kIpcSemtimedop ? Ia32Call::kCutShort : Ia32Call::kOther;
    }
    case 177:  // rt_sigtimedwait
    case 421:
    case 247:  // io_getevents
    case 385:  // io_pgetevents
    case 416:
    case 256:  // epoll_wait
    case 319:  // epoll_pwait
    case 441:  // epoll_pwait2
    case 420:  // semtimedop
      return Ia32Call::kCutShort;
    default: return Ia32Call::kOther;
  }
}

namespace {

// A page that 32-bit calls can point to.
class LowPage {
 public:
  LowPage() : at_(::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0)) {}
  LowPage(const LowPage&) = delete;
  LowPage& operator=(const LowPage&) = delete;
  ~LowPage() {
    if (valid()) ::munmap(at_, kPageSize);
  }
  bool valid() const { return at_ != MAP_FAILED; }
  void* get() const { return at_; }
  uint64_t address() const { return reinterpret_cast<uint64_t>(at_); }

 private:
  void* at_;
};

}  // namespace

Result<RobustList> get_ia32_robust_list(pid_t tid) {
  const LowPage page;
  if (!page.valid()) return fail_sys("mmap below 4 GiB");
  const int64_t done = int80(kIa32GetRobustList, static_cast<uint64_t>(tid), page.address(), page.address() + 4);
  const auto* words = static_cast<const uint32_t*>(page.get());
  if (done == 0) return RobustList{words[0], words[1]};
  errno = static_cast<int>(-done);
  return fail_sys("32-bit get_robust_list", cat("pid ", tid));
}

Result<Fd> open_as_ia32(int dirfd, const std::string& path, int flags) {
  const LowPage page;
  if (!page.valid() || path.size() >= kPageSize) return fail_sys("mmap below 4 GiB");
  std::memcpy(page.get(), path.c_str(), path.size() + 1);
  const int64_t fd = int80(kIa32Openat, static_cast<uint64_t>(dirfd), page.address(),
                           static_cast<uint64_t>(flags & ~kLargeFile) | O_CLOEXEC);
  if (fd >= 0) return Fd(static_cast<int>(fd));
  errno = static_cast<int>(-fd);
  return fail_sys("32-bit openat", path);
}

void call_ia32_getpid() { (void)int80(kIa32Getpid, 0, 0, 0); }

bool map_ia32_vdso(uint64_t at) { return ::syscall(__NR_arch_prctl, kArchMapVdso32, at) >= 0; }

bool runs_ia32() {
  const pid_t pid = ::fork();
  if (pid < 0) return false;
  if (pid == 0) {
    const rlimit none{};
    ::setrlimit(RLIMIT_CORE, &none);
    ::signal(SIGSEGV, SIG_DFL);
    call_ia32_getpid();
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status);
}

Result<std::vector<TlsSlot>> get_tls_slots(pid_t tid) {
  std::vector<TlsSlot> out;
  for (uint32_t i = 0; i < kTlsSlots; ++i) {
    TlsSlot slot{};
    if (::ptrace(static_cast<__ptrace_request>(kPtraceGetThreadArea), tid, kFirstTlsSlot + i, &slot) < 0) {
      if (errno == EIO || errno == EINVAL) return out;
      return fail_sys("ptrace(GET_THREAD_AREA)", cat("pid ", tid));
    }
    if (!slot.not_present) out.push_back(slot);
  }
  return out;
}

Result<void> set_tls_slot(pid_t tid, const TlsSlot& slot) {
  if (::ptrace(static_cast<__ptrace_request>(kPtraceSetThreadArea), tid, slot.number, &slot) < 0)
    return fail_sys("ptrace(SET_THREAD_AREA)", cat("pid ", tid));
  return {};
}

}  // namespace stasis::kernel
