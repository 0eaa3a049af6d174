// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/step_out.h"

#include <signal.h>
#include <sys/ptrace.h>

#include "engine/base/io.h"
#include "engine/kernel/ptrace.h"
#include "engine/remote/runner.h"

namespace stasis::tasks {
namespace {

constexpr int kMostSteps = 20000;  // a function has some hundred

Result<void> step_out(Thread& t, uint64_t start, uint64_t end) {
  TRY(kernel::set_sigmask(t.tid, ~(uint64_t{1} << (SIGTRAP - 1))));
  auto regs = t.regs;
  for (int steps = 0; steps < kMostSteps && regs.rip >= start && regs.rip < end; ++steps) {
    if (::ptrace(PTRACE_SINGLESTEP, t.tid, nullptr, nullptr) < 0) return fail_sys("ptrace(SINGLESTEP)", cat(t.tid));
    const auto stop = TRY(kernel::wait_stop(t.tid));
    if (stop.kind == kernel::Stop::Kind::kExited)
      return fail(Error(Code::kTaskGone, cat("pid ", t.tid, " died")).about(cat("pid ", t.tid)));
    regs = TRY(kernel::get_regs(t.tid));
  }
  TRY(remote::to_event_stop(t.tid));
  t.regs = TRY(kernel::get_regs(t.tid));
  return kernel::set_sigmask(t.tid, t.sigmask);
}

}  // namespace

Result<void> step_out_of_vdso(Process& process, const std::vector<memory::Vma>& vmas) {
  // A step's SIGTRAP takes SIG_IGN away from a task that has it there (kernel/signal.c force_sig_info_to_task).
  if (process.status.sig_ignored >> (SIGTRAP - 1) & 1) return {};
  // Of 32-bit code it holds `sysenter`, which could be stepped over only by a system call; and no other is restored.
  if (is_ia32(process)) return {};
  for (const auto& vma : vmas) {
    if (!(vma.entry.status() & memory::kVmaVdso)) continue;
    for (auto& t : process.threads)
      // In a system call made there it is as good as outside.
      if (!t.exited && t.regs.rip >= vma.entry.start() && t.regs.rip < vma.entry.end() &&
          static_cast<int64_t>(t.regs.orig_rax) < 0)
        TRY_CTX(step_out(t, vma.entry.start(), vma.entry.end()), "vDSO");
  }
  return {};
}

}  // namespace stasis::tasks
