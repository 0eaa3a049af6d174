// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/sleeps.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <map>
#include <set>

#include "engine/kernel/syscalls.h"
#include "engine/kernel/x86_64/runner.h"

namespace stasis::tasks {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

using TimerKey = std::pair<int, uint64_t>;  // clock, end

// A thread in an interrupted call with a restart block.
struct Sleeper {
  Process* process;
  Thread* thread;
  std::string where;          // /proc/PID/wchan while it sleeps
  bool over = false;          // the call has ended
  std::set<TimerKey> timers;  // in every list that was made while it slept
  std::map<TimerKey, int64_t> left;
};

bool is_poll(const Sleeper& s) {
  return s.where.starts_with("poll_") || s.where.starts_with("do_poll") || s.where.starts_with("do_sys_poll");
}

Result<long> which_call(const Sleeper& s) {
  const auto& regs = s.thread->regs;
  if (regs.orig_rax != kernel::kRestartSyscall) return static_cast<long>(regs.orig_rax);
  if (is_poll(s)) return __NR_poll;
  if (s.where.starts_with("futex")) return __NR_futex;
  if (!s.where.empty() && s.where != "0") {
    // A clock is a small number, or a negative one; an address is neither.
    const auto clock = static_cast<int64_t>(regs.rdi);
    return clock < 4096 ? __NR_clock_nanosleep : __NR_nanosleep;
  }
  return fail(Error(Code::kUnsupported, cat("pid ", s.process->pid, ": thread ", s.thread->tid,
                                            " is in a system call that was interrupted before, and /proc/PID/wchan "
                                            "does not tell which"))
                  .about(cat("pid ", s.process->pid)));
}

// Where the kernel has written the time left when the call was interrupted; 0: nowhere.
uint64_t remainder_address(long nr, const kernel::Regs& regs) {
  if (nr == __NR_nanosleep) return regs.rsi;
  if (nr == __NR_clock_nanosleep) return regs.r10;
  return 0;
}

// What makes the call end is among its arguments, or nothing does.
bool needs_no_measure(long nr, const kernel::Regs& regs) {
  if (nr == __NR_poll) return static_cast<int32_t>(regs.rdx) <= 0;
  if (nr == __NR_futex) return (regs.rsi & FUTEX_CMD_MASK) != FUTEX_WAIT || regs.r10 == 0;
  return remainder_address(nr, regs) != 0;
}

// Lets the thread go back into its call, where its timer runs, but not to any instruction of its own.
Result<void> let_sleep(const procfs::Procfs& proc, Sleeper& s) {
  const pid_t tid = s.thread->tid;
  TRY(kernel::set_sigmask(tid, ~uint64_t{0}));
  while (true) {
    TRY(kernel::cont_to_syscall(tid));
    const auto stop = TRY(kernel::wait_stop(tid));
    if (stop.kind == kernel::Stop::Kind::kSyscall) break;
    if (stop.kind == kernel::Stop::Kind::kExited)
      return fail(Error(Code::kTaskGone, cat("thread ", tid, " died")).about(cat("pid ", s.process->pid)));
  }
  TRY(kernel::cont_to_syscall(tid));
  for (int round = 0; round < 2000; ++round) {
    const char state = TRY(proc.thread_stat(s.process->pid, tid)).state;
    if (state == 'S' || state == 't') break;
    const timespec nap{0, 10'000};
    ::nanosleep(&nap, nullptr);
  }
  if (const auto where = proc.text(tid, "wchan")) s.where = trim(*where);
  return {};
}

Result<void> interrupt_sleep(Sleeper& s) {
  const pid_t tid = s.thread->tid;
  TRY(kernel::interrupt(tid));
  while (true) {
    const auto stop = TRY(kernel::wait_stop(tid));
    if (stop.kind == kernel::Stop::Kind::kExited)
      return fail(Error(Code::kTaskGone, cat("thread ", tid, " died")).about(cat("pid ", s.process->pid)));
    if (stop.event_stop()) break;
    // At the end of the call; every stop clears an interrupt that is pending.
    TRY(kernel::interrupt(tid));
    TRY(kernel::cont(tid));
  }
  s.thread->regs = TRY(kernel::get_regs(tid));
  s.over = kernel::restart_code(s.thread->regs) != kernel::kRestartBlock;
  return kernel::set_sigmask(tid, s.thread->sigmask);
}

std::map<TimerKey, int64_t> list_timers(const procfs::Procfs& proc) {
  std::map<TimerKey, int64_t> out;
  // Readable for root of the host only; without it a sleep begins anew.
  if (const auto timers = proc.sleep_timers())
    for (const auto& t : *timers) out[{t.clock, t.end}] = t.left;
  return out;
}

int64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kSecond + now.tv_nsec;
}

// Whose timer is whose the list does not say, but it has a sleeper's timer, always with the same end, if and only if
// that one is let sleep, and all the others of the tree are stopped.
Result<void> watch(const procfs::Procfs& proc, std::vector<Sleeper>& sleepers) {
  // The container stands still meanwhile, and the list of a large machine is long: who is not reached begins anew.
  constexpr int64_t kPatience = 30'000'000;  // ns, for each of two rounds
  constexpr size_t kAlways = 64;
  const int64_t start = monotonic_ns();
  size_t reached = 0;
  std::set<TimerKey> others;
  for (const bool first : {true, false}) {
    for (const auto& [key, left] : list_timers(proc)) others.insert(key);
    for (size_t i = 0; i < (first ? sleepers.size() : reached); ++i) {
      auto& s = sleepers[i];
      if (first && i >= kAlways && monotonic_ns() - start > kPatience) break;
      if (first) reached = i + 1;
      if (s.over) continue;
      TRY(let_sleep(proc, s));
      auto now = list_timers(proc);
      TRY(interrupt_sleep(s));
      std::set<TimerKey> seen;
      for (const auto& [key, left] : now)
        if (first || s.timers.contains(key)) seen.insert(key);
      s.timers = std::move(seen);
      s.left = std::move(now);
    }
  }
  for (const auto& [key, left] : list_timers(proc)) others.insert(key);
  for (auto& s : sleepers) std::erase_if(s.timers, [&](const auto& key) { return others.contains(key); });
  return {};
}

Result<void> conclude(Sleeper& s) {
  if (s.over) return {};
  auto& t = *s.thread;
  const long nr = TRY(which_call(s));
  t.regs.orig_rax = static_cast<uint64_t>(nr);
  if (const uint64_t at = remainder_address(nr, t.regs); at != 0) {
    timespec left{};
    TRY(kernel::vm_read(t.tid, at, &left, sizeof(left)));
    if (left.tv_sec >= 0 && left.tv_sec < std::numeric_limits<int64_t>::max() / kSecond && left.tv_nsec >= 0 &&
        left.tv_nsec < kSecond)
      t.sleep_left_ns = static_cast<uint64_t>(left.tv_sec * kSecond + left.tv_nsec);
  } else if (!needs_no_measure(nr, t.regs)) {
    if (s.timers.size() == 1)
      t.sleep_left_ns = static_cast<uint64_t>(std::max<int64_t>(0, s.left.at(*s.timers.begin())));
    else
      log::warning("thread ", t.tid, ": when its system call ", nr,
                   " would end cannot be told; a restored one begins anew, ignoring");
  }
  return {};
}

struct Call {
  long nr = 0;
  uint64_t args[6] = {};
  int time_at = -1;  // which argument is the address of the time left
};

std::optional<Call> call_of(const pb::user_x86_regs_entry& r, uint64_t left_ns) {
  Call call{static_cast<long>(r.ax()), {r.di(), r.si(), r.dx(), r.r10(), r.r8(), r.r9()}};
  switch (call.nr) {
    case __NR_nanosleep: call.time_at = 0; break;
    case __NR_clock_nanosleep:
      if (call.args[1] != 0) return std::nullopt;
      call.time_at = 2;
      break;
    case __NR_futex:
      if ((call.args[1] & FUTEX_CMD_MASK) != FUTEX_WAIT) return std::nullopt;
      call.time_at = 3;
      break;
    case __NR_poll: call.args[2] = std::min<uint64_t>((left_ns + 999'999) / 1'000'000, INT32_MAX); break;
    default: return std::nullopt;
  }
  return call;
}

// The call is begun by the runner's own instruction and interrupted at once.
Result<int64_t> begin(Driven& d, size_t i, Call call, uint64_t left_ns) {
  const pid_t tid = d.tids[i];
  if (call.time_at >= 0) {
    const timespec left{static_cast<time_t>(left_ns / kSecond), static_cast<long>(left_ns % kSecond)};
    TRY(kernel::vm_write(d.tids[0], d.runner.arena(), &left, sizeof(left)));
    call.args[call.time_at] = d.runner.arena();
  }
  auto regs = TRY(kernel::get_regs(tid));
  kernel::aim_syscall(regs, d.runner.code() + kernel::kRunnerSyscall, static_cast<uint64_t>(call.nr), call.args);
  TRY(kernel::set_regs(tid, regs));
  TRY(kernel::cont_to_syscall(tid));
  bool entered = false;
  while (true) {
    const auto stop = TRY(kernel::wait_stop(tid));
    if (stop.event_stop() && entered) return static_cast<int64_t>(TRY(kernel::get_regs(tid)).rax);
    if (stop.kind == kernel::Stop::Kind::kSyscall && !entered) {
      entered = true;
      TRY(kernel::interrupt(tid));
      TRY(kernel::cont(tid));
    } else if (stop.event_stop()) {
      TRY(kernel::cont_to_syscall(tid));
    } else {
      return fail(Code::kRestoreFailed, cat("thread ", tid, " died, or got a signal, when its sleep began"));
    }
  }
}

}  // namespace

Result<void> measure_sleeps(const procfs::Procfs& proc, std::vector<Process>& processes) {
  std::vector<Sleeper> known, unknown;
  for (auto& p : processes)
    for (auto& t : p.threads) {
      if (t.exited || kernel::restart_code(t.regs) != kernel::kRestartBlock) continue;
      const auto nr = static_cast<long>(t.regs.orig_rax);
      const bool told = t.regs.orig_rax != kernel::kRestartSyscall && needs_no_measure(nr, t.regs);
      (told ? known : unknown).push_back({&p, &t});
    }
  if (!unknown.empty()) TRY(watch(proc, unknown));
  for (auto* sleepers : {&known, &unknown})
    for (auto& s : *sleepers) TRY(conclude(s));
  return {};
}

Result<void> begin_sleeps(Driven& d) {
  for (size_t i = 0; i < d.tids.size(); ++i) {
    const auto* extra = d.image->extras[i];
    if (!extra || extra->more().restart() != kernel::kRestartBlock || !extra->has_sleep_left_ns()) continue;
    const uint64_t left = std::min<uint64_t>(extra->sleep_left_ns(), std::numeric_limits<int64_t>::max() / 2);
    const auto call = call_of(d.image->threads[i].thread_info().gpregs(), left);
    if (call) d.slept[i] = TRY(begin(d, i, *call, left));
  }
  return {};
}

}  // namespace stasis::tasks
