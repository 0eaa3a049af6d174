// SPDX-License-Identifier: Apache-2.0
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>

#include "engine/kernel/syscalls.h"
#include "engine/kernel/x86_64/ia32.h"
#include "engine/tasks/restore_core.h"
#include "engine/tasks/timers.h"

namespace stasis::tasks {
namespace {

using remote::Batch;

siginfo_t read_info(const pb::siginfo_entry& entry) {
  siginfo_t info{};
  std::memcpy(&info, entry.siginfo().data(), std::min(entry.siginfo().size(), sizeof(info)));
  // Older kernels keep a number of their own behind the value; a queued copy must not have it.
  if (info.si_code == SI_TIMER) std::memset(reinterpret_cast<char*>(&info) + 32, 0, sizeof(int));
  return info;
}

Result<void> requeue(Driven& d, const pb::signal_queue_entry& queue, size_t thread, bool shared) {
  const auto pid = static_cast<pid_t>(d.image->node.pid()), tid = static_cast<pid_t>(d.image->tids[thread]);
  Batch batch;
  auto flush = [&]() -> Result<void> {
    TRY(d.runner.run_checked(batch, d.tids[thread]));
    batch = Batch();
    return {};
  };
  for (const auto& s : queue.signals()) {
    const siginfo_t info = read_info(s);
    if (info.si_code == SI_TIMER) {
      TRY(flush());
      if (TRY(expire_again(d, info))) continue;
    }
    const auto at = batch.put(info);
    if (shared)
      batch.add(__NR_rt_sigqueueinfo, pid, info.si_signo, at);
    else
      batch.add(__NR_rt_tgsigqueueinfo, pid, tid, info.si_signo, at);
    batch.must(cat("queue signal ", info.si_signo));
    if (batch.size() >= 512) TRY(flush());
  }
  return flush();
}

// What is queued counts against this limit; the task's own comes later.
void raise_pending_limit(Batch& batch) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_SIGPENDING, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  batch.add(__NR_prlimit64, 0, RLIMIT_SIGPENDING, batch.put(limit), 0);
}

// The kernel remembers which code has asked for a handler, and gives it the frame of that code.
Result<void> restore_actions(Driven& d) {
  Batch batch;
  if (d.image->ia32) batch.make_ia32();
  int sig = 0;
  for (const auto& e : d.image->tc().sigactions()) {
    ++sig;
    while (sig == SIGKILL || sig == SIGSTOP) ++sig;
    if (sig > 64) break;
    if (d.image->ia32)
      batch.add(
          kernel::kIa32RtSigaction, sig,
          batch.put(kernel::Ia32Sigaction{static_cast<uint32_t>(e.sigaction()),
                                          static_cast<uint32_t>(e.flags()),
                                          static_cast<uint32_t>(e.restorer()),
                                          {static_cast<uint32_t>(e.mask()), static_cast<uint32_t>(e.mask() >> 32)}}),
          0, 8);
    else
      batch.add(__NR_rt_sigaction, sig,
                batch.put(kernel::KernelSigaction{e.sigaction(), e.flags(), e.restorer(), e.mask()}), 0, 8);
    batch.must(cat("rt_sigaction(", sig, ")"));
  }
  return d.runner.run_checked(batch);
}

}  // namespace

Result<void> restore_signals(Driven& d) {
  Batch batch;
  raise_pending_limit(batch);
  // Ignoring a signal discards it where it is pending: SIGCHLD of helpers and zombies.
  const auto ignore = batch.put(kernel::KernelSigaction{1 /* SIG_IGN */, 0, 0, 0});
  batch.add(__NR_rt_sigaction, SIGCHLD, ignore, 0, 8);
  batch.must("rt_sigaction(SIGCHLD)");
  TRY(d.runner.run_checked(batch));
  TRY(restore_actions(d));
  TRY(create_posix_timers(d));
  TRY(requeue(d, d.image->tc().signals_s(), 0, true));
  for (size_t i = 0; i < d.tids.size(); ++i) TRY(requeue(d, d.image->threads[i].thread_core().signals_p(), i, false));
  return {};
}

}  // namespace stasis::tasks
