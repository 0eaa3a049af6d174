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
#include "engine/kernel/x86_64/ia32.h"
#include "engine/kernel/x86_64/runner.h"

namespace stasis::tasks {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

using TimerKey = std::pair<int, uint64_t>;  // clock, end

// As 64-bit code would make it.
struct Call {
  long nr = 0;
  uint64_t args[6] = {};
  bool ia32 = false;
  bool wide = true;     // times are of 64 bits
  bool hidden = false;  // its number, behind restart_syscall(2): `wide` of ia32 is not known
};

// A thread in an interrupted call with a restart block.
struct Sleeper {
  Process* process;
  Thread* thread;
  Call call;                  // as it was found: to be let sleep hides it
  std::string where;          // /proc/PID/wchan while it sleeps
  bool over = false;          // the call has ended
  std::set<TimerKey> timers;  // in every list that was made while it slept
  std::map<TimerKey, int64_t> left;
};

using kernel::Ia32Call;

Call make_call(const kernel::Regs& r) {
  if (!kernel::is_ia32(r)) {
    const auto nr = static_cast<long>(r.orig_rax);
    return {
        .nr = nr, .args = {r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9}, .hidden = r.orig_rax == kernel::kRestartSyscall};
  }
  Call call{.ia32 = true};
  const uint64_t args[] = {r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp};
  for (int i = 0; i < 6; ++i) call.args[i] = static_cast<uint32_t>(args[i]);
  const auto which = kernel::ia32_call(r);
  call.wide = which == Ia32Call::kClockNanosleep64 || which == Ia32Call::kFutex64;
  call.hidden = which == Ia32Call::kRestart;
  switch (which) {
    case Ia32Call::kNanosleep: call.nr = __NR_nanosleep; break;
    case Ia32Call::kClockNanosleep:
    case Ia32Call::kClockNanosleep64: call.nr = __NR_clock_nanosleep; break;
    case Ia32Call::kFutex:
    case Ia32Call::kFutex64: call.nr = __NR_futex; break;
    case Ia32Call::kPoll: call.nr = __NR_poll; break;
    default: call.nr = -1;
  }
  return call;
}

// The number that the task's own code has for it.
uint64_t own_number(const Call& call, const kernel::Regs& regs) {
  if (!call.ia32) return static_cast<uint64_t>(call.nr);
  switch (call.nr) {
    case __NR_nanosleep: return 162;
    case __NR_clock_nanosleep: return call.wide ? 407 : 267;
    case __NR_futex: return call.wide ? 422 : 240;
    case __NR_poll: return 168;
    default: return regs.orig_rax;
  }
}

bool is_poll(const Sleeper& s) {
  return s.where.starts_with("poll_") || s.where.starts_with("do_poll") || s.where.starts_with("do_sys_poll");
}

std::unexpected<Error> cannot_tell(const Sleeper& s) {
  return fail(Error(Code::kUnsupported, cat("pid ", s.process->pid, ": thread ", s.thread->tid,
                                            " is in a system call that was interrupted before, and /proc/PID/wchan "
                                            "does not tell which"))
                  .about(cat("pid ", s.process->pid)));
}

Result<Call> which_call(const Sleeper& s) {
  Call call = s.call;
  if (!call.hidden) return call;
  if (is_poll(s)) {
    call.nr = __NR_poll;
  } else if (s.where.starts_with("futex")) {
    call.nr = __NR_futex;
  } else if (!s.where.empty() && s.where != "0") {
    // A clock is a small number, or a negative one, of a processor; an address is neither, but may look so in 32 bits.
    const auto clock = static_cast<int64_t>(call.args[0]);
    const bool is_clock = clock < 4096 || (call.ia32 && s.where.find("cpu") != std::string::npos);
    call.nr = is_clock ? __NR_clock_nanosleep : __NR_nanosleep;
  } else {
    return cannot_tell(s);
  }
  return call;
}

// Where the kernel has written the time left when the call was interrupted; 0: nowhere.
uint64_t remainder_address(const Call& call) {
  if (call.nr == __NR_nanosleep) return call.args[1];
  if (call.nr == __NR_clock_nanosleep) return call.args[3];
  return 0;
}

// Just written by the kernel: short times have their nanoseconds where wide ones have the upper half of the seconds.
Result<timespec> read_remainder(pid_t tid, uint64_t at, Call& call) {
  if (call.ia32 && (call.hidden || !call.wide)) {
    uint32_t words[2];
    TRY(kernel::vm_read(tid, at, words, sizeof(words)));
    if (call.hidden) call.wide = call.nr == __NR_clock_nanosleep && words[1] == 0;
    if (!call.wide) return timespec{words[0], words[1]};
  }
  timespec left{};
  TRY(kernel::vm_read(tid, at, &left, sizeof(left)));
  return left;
}

// What makes the call end is among its arguments, or nothing does.
bool needs_no_measure(const Call& call) {
  if (call.nr == __NR_poll) return static_cast<int32_t>(call.args[2]) <= 0;
  if (call.nr == __NR_futex) return (call.args[1] & FUTEX_CMD_MASK) != FUTEX_WAIT || call.args[3] == 0;
  return remainder_address(call) != 0;
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
    if (state == 't') break;
    const auto where = proc.text(tid, "wchan");
    if (where) s.where = trim(*where);
    // It may have been woken in between: of a task that runs there is no place.
    if (state == 'S' && (!where || s.where != "0")) break;
    const timespec nap{0, round < 500 ? 10'000 : 500'000};
    ::nanosleep(&nap, nullptr);
  }
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
Result<void> watch_once(const procfs::Procfs& proc, const std::vector<Sleeper*>& sleepers, int64_t until) {
  constexpr size_t kAlways = 64;
  size_t reached = 0;
  std::set<TimerKey> others;
  for (const bool first : {true, false}) {
    for (const auto& [key, left] : list_timers(proc)) others.insert(key);
    for (size_t i = 0; i < (first ? sleepers.size() : reached); ++i) {
      auto& s = *sleepers[i];
      if (first && i >= kAlways && monotonic_ns() > until) break;
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
  for (auto* s : sleepers) std::erase_if(s->timers, [&](const auto& key) { return others.contains(key); });
  return {};
}

// The list is not written at one moment: on a busy machine a timer may be missing in it, or be somebody's that was
// missing before.
Result<void> watch(const procfs::Procfs& proc, std::vector<Sleeper>& sleepers) {
  constexpr int kRounds = 3;
  // The container stands still meanwhile, and the list of a large machine is long: who is not reached begins anew.
  constexpr int64_t kPatience = 30'000'000;  // ns
  const int64_t until = monotonic_ns() + kPatience;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<Sleeper*> open;
    for (auto& s : sleepers) {
      if (s.over || s.timers.size() == 1) continue;
      if (const auto call = which_call(s); round > 0 && call && needs_no_measure(*call)) continue;
      open.push_back(&s);
    }
    if (open.empty() || (round > 0 && monotonic_ns() > until)) break;
    TRY(watch_once(proc, open, until));
  }
  return {};
}

Result<void> conclude(Sleeper& s) {
  if (s.over) return {};
  auto& t = *s.thread;
  Call call = TRY(which_call(s));
  if (const uint64_t at = remainder_address(call); at != 0) {
    const timespec left = TRY(read_remainder(t.tid, at, call));
    if (left.tv_sec >= 0 && left.tv_sec < std::numeric_limits<int64_t>::max() / kSecond && left.tv_nsec >= 0 &&
        left.tv_nsec < kSecond)
      t.sleep_left_ns = static_cast<uint64_t>(left.tv_sec * kSecond + left.tv_nsec);
  } else if (!needs_no_measure(call)) {
    if (s.timers.size() == 1)
      t.sleep_left_ns = static_cast<uint64_t>(std::max<int64_t>(0, s.left.at(*s.timers.begin())));
    else if (call.ia32 && call.hidden && call.nr != __NR_poll)
      return cannot_tell(s);  // whether its time, to be looked at again, is a short or a wide one
    else
      log::warning("thread ", t.tid, ": when its system call ", call.nr,
                   " would end cannot be told; a restored one begins anew, ignoring");
    if (call.hidden) call.wide = true;  // begun again, it gets one of ours
  }
  t.regs.orig_rax = own_number(call, t.regs);
  return {};
}

struct Beginning {
  Call call;
  uint64_t number = 0;
  int time_at = -1;  // which argument is the address of the time left
};

std::optional<Beginning> beginning_of(const pb::user_x86_regs_entry& r, uint64_t left_ns) {
  kernel::Regs regs{};
  regs.orig_rax = r.ax();
  regs.rdi = r.di(), regs.rsi = r.si(), regs.rdx = r.dx(), regs.r10 = r.r10(), regs.r8 = r.r8(), regs.r9 = r.r9();
  regs.rbx = r.bx(), regs.rcx = r.cx(), regs.rbp = r.bp();
  regs.cs = r.mode() == pb::COMPAT ? kernel::kCodeSegment32 : kernel::kCodeSegment;
  Beginning out{.call = make_call(regs), .number = r.ax()};
  auto& call = out.call;
  switch (call.nr) {
    case __NR_nanosleep: out.time_at = 0; break;
    case __NR_clock_nanosleep:
      if (call.args[1] != 0) return std::nullopt;
      out.time_at = 2;
      break;
    case __NR_futex:
      if ((call.args[1] & FUTEX_CMD_MASK) != FUTEX_WAIT) return std::nullopt;
      out.time_at = 3;
      break;
    case __NR_poll: call.args[2] = std::min<uint64_t>((left_ns + 999'999) / 1'000'000, INT32_MAX); break;
    default: return std::nullopt;
  }
  return out;
}

Result<void> write_time(const remote::Runner& runner, const Call& call, uint64_t left_ns) {
  const auto seconds = static_cast<int64_t>(left_ns / kSecond), rest = static_cast<int64_t>(left_ns % kSecond);
  const int64_t wide[] = {seconds, rest};
  const int32_t narrow[] = {static_cast<int32_t>(std::min<int64_t>(seconds, INT32_MAX)), static_cast<int32_t>(rest)};
  if (call.wide) return kernel::vm_write(runner.pid(), runner.arena(), wide, sizeof(wide));
  return kernel::vm_write(runner.pid(), runner.arena(), narrow, sizeof(narrow));
}

// The call is begun by the runner's own instruction and interrupted at once.
Result<int64_t> begin(Driven& d, size_t i, Beginning what, uint64_t left_ns) {
  const pid_t tid = d.tids[i];
  auto& call = what.call;
  if (what.time_at >= 0) {
    TRY(write_time(d.runner, call, left_ns));
    call.args[what.time_at] = d.runner.arena();
  }
  auto regs = TRY(kernel::get_regs(tid));
  if (call.ia32)
    kernel::aim_int80(regs, d.runner.code() + kernel::kRunnerInt80, what.number, call.args);
  else
    kernel::aim_syscall(regs, d.runner.code() + kernel::kRunnerSyscall, what.number, call.args);
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
      const Call call = make_call(t.regs);
      const bool told = !call.hidden && needs_no_measure(call);
      (told ? known : unknown).push_back({.process = &p, .thread = &t, .call = call});
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
    const auto what = beginning_of(d.image->threads[i].thread_info().gpregs(), left);
    if (what) d.slept[i] = TRY(begin(d, i, *what, left));
  }
  return {};
}

}  // namespace stasis::tasks
