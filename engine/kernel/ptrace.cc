// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/ptrace.h"

#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include <cerrno>
#include <cstring>

#include "engine/kernel/syscalls.h"

namespace stasis::kernel {
namespace {

std::unexpected<Error> trace_error(std::string_view what, pid_t tid) {
  // ESRCH also means "not stopped": with a tracer that never forgets its stops it is death.
  if (errno == ESRCH) return fail_sys(Code::kTaskGone, what, cat("pid ", tid));
  return fail_sys(what, cat("pid ", tid));
}

template <class Addr, class Data>
Result<long> request(int req, const char* name, pid_t tid, Addr addr, Data data) {
  errno = 0;
  const long r = ::ptrace(static_cast<__ptrace_request>(req), tid, addr, data);
  if (r < 0 && errno != 0) return trace_error(name, tid);
  return r;
}

int64_t now_ms() {
  timespec ts{};
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

}  // namespace

Result<void> seize(pid_t tid, unsigned long options) {
  errno = 0;
  if (::ptrace(PTRACE_SEIZE, tid, nullptr, options) < 0) {
    if (errno == EPERM) return fail_sys(Code::kTraced, "ptrace(SEIZE)", cat("pid ", tid));
    return trace_error("ptrace(SEIZE)", tid);
  }
  return {};
}

Result<void> interrupt(pid_t tid) {
  TRY(request(PTRACE_INTERRUPT, "ptrace(INTERRUPT)", tid, nullptr, nullptr));
  return {};
}

Result<Stop> wait_stop(pid_t tid, int timeout_ms) {
  const int64_t deadline = timeout_ms < 0 ? 0 : now_ms() + timeout_ms;
  int status = 0;
  for (int spins = 0;; ++spins) {
    const pid_t got = ::waitpid(tid, &status, __WALL | (timeout_ms < 0 ? 0 : WNOHANG));
    if (got == tid) break;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_sys(Code::kTaskGone, "waitpid", cat("pid ", tid));
    if (now_ms() > deadline)
      return fail(Error(Code::kTimeout, cat("pid ", tid, " did not stop")).about(cat("pid ", tid)));
    const timespec nap{0, spins < 50 ? 20'000 : 500'000};
    ::nanosleep(&nap, nullptr);
  }
  Stop stop;
  if (!WIFSTOPPED(status)) return stop;
  const int signal = WSTOPSIG(status);
  if (status >> 16) return Stop{Stop::Kind::kEvent, signal, status >> 16};
  if (signal == (SIGTRAP | 0x80)) return Stop{Stop::Kind::kSyscall, SIGTRAP, 0};
  return Stop{Stop::Kind::kSignal, signal, 0};
}

void reap(std::vector<pid_t> tids, int timeout_ms) {
  const int64_t deadline = now_ms() + timeout_ms;
  for (int round = 0; !tids.empty(); ++round) {
    std::erase_if(tids, [](pid_t tid) {
      int status = 0;
      const pid_t got = ::waitpid(tid, &status, __WALL | WNOHANG);
      return (got == tid && (WIFEXITED(status) || WIFSIGNALED(status))) || (got < 0 && errno == ECHILD);
    });
    if (tids.empty() || now_ms() > deadline) return;
    const timespec nap{0, round < 50 ? 20'000 : 500'000};
    ::nanosleep(&nap, nullptr);
  }
}

Result<void> cont(pid_t tid, int signal) {
  TRY(request(PTRACE_CONT, "ptrace(CONT)", tid, nullptr, static_cast<long>(signal)));
  return {};
}

Result<void> cont_to_syscall(pid_t tid) {
  TRY(request(PTRACE_SYSCALL, "ptrace(SYSCALL)", tid, nullptr, nullptr));
  return {};
}

Result<void> detach(pid_t tid, int signal) {
  TRY(request(PTRACE_DETACH, "ptrace(DETACH)", tid, nullptr, static_cast<long>(signal)));
  return {};
}

Result<void> set_options(pid_t tid, unsigned long options) {
  TRY(request(PTRACE_SETOPTIONS, "ptrace(SETOPTIONS)", tid, nullptr, options));
  return {};
}

Result<Regs> get_regs(pid_t tid) {
  Regs regs{};
  // Not PTRACE_GETREGSET: that shows the registers of the code, of 32 bits, these are those of the tracer.
  TRY(request(PTRACE_GETREGS, "ptrace(GETREGS)", tid, nullptr, &regs));
  return regs;
}

Result<void> set_regs(pid_t tid, const Regs& regs) {
  TRY(request(PTRACE_SETREGS, "ptrace(SETREGS)", tid, nullptr, &regs));
  return {};
}

Result<std::vector<uint8_t>> get_xstate(pid_t tid) {
  std::vector<uint8_t> data(32768);
  iovec iov{data.data(), data.size()};
  TRY(request(PTRACE_GETREGSET, "ptrace(GETREGSET XSTATE)", tid, NT_X86_XSTATE, &iov));
  data.resize(iov.iov_len);
  return data;
}

Result<void> set_xstate(pid_t tid, const std::vector<uint8_t>& data) {
  iovec iov{const_cast<uint8_t*>(data.data()), data.size()};
  TRY(request(PTRACE_SETREGSET, "ptrace(SETREGSET XSTATE)", tid, NT_X86_XSTATE, &iov));
  return {};
}

Result<uint64_t> get_sigmask(pid_t tid) {
  uint64_t mask = 0;
  TRY(request(PTRACE_GETSIGMASK, "ptrace(GETSIGMASK)", tid, sizeof(mask), &mask));
  return mask;
}

Result<void> set_sigmask(pid_t tid, uint64_t mask) {
  TRY(request(PTRACE_SETSIGMASK, "ptrace(SETSIGMASK)", tid, sizeof(mask), &mask));
  return {};
}

Result<std::vector<siginfo_t>> peek_signals(pid_t tid, bool shared) {
  std::vector<siginfo_t> out;
  siginfo_t chunk[32];
  while (true) {
    __ptrace_peeksiginfo_args args{};
    args.off = out.size();
    args.flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0;
    args.nr = 32;
    const long n = TRY(request(PTRACE_PEEKSIGINFO, "ptrace(PEEKSIGINFO)", tid, &args, chunk));
    out.insert(out.end(), chunk, chunk + n);
    if (n < 32) return out;
  }
}

Result<Rseq> get_rseq(pid_t tid) {
  struct {
    uint64_t address;
    uint32_t size, signature, flags, pad;
  } raw{};
  errno = 0;
  const long r = ::ptrace(static_cast<__ptrace_request>(PTRACE_GET_RSEQ_CONFIGURATION), tid, sizeof(raw), &raw);
  if (r < 0 && errno == EIO) return Rseq{};  // kernel before 5.13, or without rseq
  if (r < 0) return trace_error("ptrace(GET_RSEQ_CONFIGURATION)", tid);
  return Rseq{raw.address, raw.size, raw.signature, raw.flags};
}

bool dispatches_syscalls(pid_t tid) {
  constexpr int kGetDispatch = 0x4211;  // PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG
  struct {
    uint64_t mode, selector, offset, size;
  } config{};
  return ::ptrace(static_cast<__ptrace_request>(kGetDispatch), tid, sizeof(config), &config) == 0 && config.mode != 0;
}

Result<std::vector<SeccompFilter>> get_seccomp_filters(pid_t tid) {
  std::vector<SeccompFilter> out;
  for (unsigned long index = 0;; ++index) {
    errno = 0;
    const long count = ::ptrace(static_cast<__ptrace_request>(PTRACE_SECCOMP_GET_FILTER), tid, index, nullptr);
    if (count < 0 && errno == ENOENT) return out;
    if (count < 0) return trace_error("ptrace(SECCOMP_GET_FILTER)", tid);
    SeccompFilter filter;
    filter.program.resize(static_cast<size_t>(count) * 8);
    TRY(request(PTRACE_SECCOMP_GET_FILTER, "ptrace(SECCOMP_GET_FILTER)", tid, index, filter.program.data()));
    struct {
      uint64_t filter_off, flags;
    } meta{index, 0};
    TRY(request(0x420d /* PTRACE_SECCOMP_GET_METADATA */, "ptrace(SECCOMP_GET_METADATA)", tid, sizeof(meta), &meta));
    filter.flags = meta.flags;
    out.push_back(std::move(filter));
  }
}

}  // namespace stasis::kernel
