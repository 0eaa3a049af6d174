// SPDX-License-Identifier: Apache-2.0
#include "engine/remote/runner.h"

#include <elf.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"
#include "engine/kernel/x86_64/ia32.h"
#include "engine/procfs/procfs.h"

namespace stasis::remote {
namespace {

constexpr size_t kDumpArena = 256 * 1024;
constexpr size_t kFrameSpace = 36 * 1024;  // for the signal frame, at the end of the arena
constexpr uint64_t kAllButTrap = ~(uint64_t{1} << (SIGTRAP - 1));

std::string pid_name(pid_t tid) { return cat("pid ", tid); }

std::string call_error(int64_t result) {
  const char* text = strerrordesc_np(static_cast<int>(-result));
  return text ? text : cat("error ", -result);
}

// Waits for the stop that ends a batch or a syscall, passing by group-stop notifications.
Result<kernel::Stop> next_stop(pid_t tid, bool to_syscall) {
  while (true) {
    auto stop = TRY(kernel::wait_stop(tid));
    if (stop.kind == kernel::Stop::Kind::kExited)
      return fail(Error(Code::kTaskGone, cat("pid ", tid, " died while it was driven")).about(pid_name(tid)));
    if (!stop.event_stop()) return stop;
    // SIGCONT or a stop signal elsewhere in the group re-traps us; go on.
    TRY(to_syscall ? kernel::cont_to_syscall(tid) : kernel::cont(tid));
  }
}

}  // namespace

namespace {

// What is done to many stopped threads, a step at a time for all of them: while one is on its way to its next stop the
// others are looked after. An entry that has failed is left out of what follows.
template <class Entry, class Step>
void for_each_well(std::span<Entry> entries, Step step) {
  for (auto& entry : entries)
    if (entry.well)
      if (Result<void> done = step(entry); !done) entry.well = std::move(done);
}

Result<void> begin_event_stop(pid_t tid) {
  TRY(kernel::interrupt(tid));
  return kernel::cont(tid);
}

Result<void> end_event_stop(pid_t tid) {
  while (true) {
    const auto stop = TRY(kernel::wait_stop(tid));
    if (stop.kind == kernel::Stop::Kind::kExited)
      return fail(Error(Code::kTaskGone, cat("pid ", tid, " died")).about(pid_name(tid)));
    if (stop.event_stop()) return {};
    TRY(kernel::cont(tid));
  }
}

struct Call {
  pid_t tid = 0;
  uint64_t instruction = 0;
  std::array<uint64_t, 6> args{};
  int64_t result = 0;
  Result<void> well;
  bool ia32 = false;  // the instruction is an `int $0x80` of 32-bit code
};

long ia32_number(long nr) { return nr == __NR_mmap ? kernel::kIa32Mmap2 : kernel::kIa32Munmap; }

Result<void> to_next_syscall_stop(pid_t tid) {
  const auto stop = TRY(next_stop(tid, true));
  if (stop.kind == kernel::Stop::Kind::kSyscall) return {};
  return fail(Error(Code::kInternal, cat("pid ", tid, " stopped with signal ", stop.signal, " in a remote system call"))
                  .about(pid_name(tid)));
}

void make_calls(std::span<Call> calls, long nr) {
  for_each_well(calls, [&](Call& call) -> Result<void> {
    auto regs = TRY(kernel::get_regs(call.tid));
    if (call.ia32)
      kernel::aim_int80(regs, call.instruction, static_cast<uint64_t>(ia32_number(nr)), call.args);
    else
      kernel::aim_syscall(regs, call.instruction, static_cast<uint64_t>(nr), call.args);
    TRY(kernel::set_regs(call.tid, regs));
    return kernel::cont_to_syscall(call.tid);
  });
  for_each_well(calls, [&](Call& call) -> Result<void> {
    TRY(to_next_syscall_stop(call.tid));
    return kernel::cont_to_syscall(call.tid);
  });
  for_each_well(calls, [&](Call& call) -> Result<void> {
    TRY(to_next_syscall_stop(call.tid));
    call.result = static_cast<int64_t>(TRY(kernel::get_regs(call.tid)).rax);
    return {};
  });
}

}  // namespace

Result<void> to_event_stop(pid_t tid) {
  TRY(begin_event_stop(tid));
  return end_event_stop(tid);
}

Result<int64_t> classic_syscall(pid_t tid, uint64_t instruction, long nr, std::span<const uint64_t> args) {
  Call call{.tid = tid, .instruction = instruction};
  std::ranges::copy(args, call.args.begin());
  make_calls({&call, 1}, nr);
  TRY(std::move(call.well));
  return call.result;
}

Result<uint64_t> find_syscall_instruction(pid_t tid, const kernel::Regs& regs) {
  const auto* wanted = kernel::is_ia32(regs) ? kernel::kInt80Insn : kernel::kSyscallInsn;
  uint8_t code[2] = {};
  if (static_cast<int64_t>(regs.orig_rax) >= 0 && kernel::vm_read(tid, regs.rip - 2, code, 2) &&
      std::memcmp(code, wanted, 2) == 0)
    return regs.rip - 2;
  auto proc = TRY(procfs::Procfs::open());
  const auto maps = TRY(procfs::parse_smaps(TRY(proc.text(tid, "maps"))));
  // The vDSO always holds one (the fallback of clock_gettime); otherwise any text will do.
  for (const bool vdso_only : {true, false}) {
    for (const auto& map : maps) {
      if (!map.exec || !map.read || map.name == "[vsyscall]" || (vdso_only && map.name != "[vdso]")) continue;
      std::vector<uint8_t> text(std::min<uint64_t>(map.size(), 4u << 20));
      if (!kernel::vm_read(tid, map.start, text.data(), text.size())) continue;
      for (size_t i = 0; i + 1 < text.size(); ++i)
        if (std::memcmp(&text[i], wanted, 2) == 0) return map.start + i;
    }
  }
  return fail(Error(Code::kUnsupportedMemory, cat("pid ", tid, " has no syscall instruction in its memory"))
                  .about(pid_name(tid)));
}

namespace {

// A task on its way in or out: what it was, and its next call.
struct Passage {
  Call call;
  kernel::Regs regs{};
  uint64_t mask = 0;
  Result<void> well;

  // Signals wait until we are through; a batch has the same protection.
  Result<void> begin(pid_t pid) {
    call.tid = pid;
    regs = TRY(kernel::get_regs(pid));
    mask = TRY(kernel::get_sigmask(pid));
    return kernel::set_sigmask(pid, kAllButTrap);
  }
  Result<void> end() const {
    TRY(end_event_stop(call.tid));
    TRY(kernel::set_regs(call.tid, regs));
    return kernel::set_sigmask(call.tid, mask);
  }
};

// Makes one call in each; a call that cannot be made ends the passage, one that says no does not.
void pass(std::vector<Passage>& passages, long nr) {
  std::vector<Call> calls;
  std::vector<Passage*> of;
  for (auto& p : passages)
    if (p.well) calls.push_back(p.call), of.push_back(&p);
  make_calls(calls, nr);
  for (size_t i = 0; i < calls.size(); ++i) {
    of[i]->call.result = calls[i].result;
    if (!calls[i].well) of[i]->well = std::move(calls[i].well);
  }
}

void come_to_rest(std::vector<Passage>& passages) {
  for_each_well(std::span(passages), [](Passage& p) { return begin_event_stop(p.call.tid); });
  for_each_well(std::span(passages), [](Passage& p) { return p.end(); });
}

Result<uint64_t> mapped(const Passage& p) {
  if (p.call.result >= 0 || p.call.result < -4095) return static_cast<uint64_t>(p.call.result);
  errno = static_cast<int>(-p.call.result);
  return fail_sys("mmap of the runner in", pid_name(p.call.tid));
}

// A task may have room for one mapping and not for two.
void take_back_halves(std::vector<Passage>& passages, const std::vector<Result<uint64_t>>& code,
                      const std::vector<Result<uint64_t>>& arena) {
  bool any = false;
  for (size_t i = 0; i < passages.size(); ++i) {
    passages[i].call.args = {};  // munmap(2) of nothing does nothing
    if (code[i].has_value() == arena[i].has_value()) continue;
    passages[i].call.args = {code[i] ? *code[i] : *arena[i], code[i] ? kernel::kPageSize : kDumpArena};
    any = true;
  }
  if (any) pass(passages, __NR_munmap);
}

Result<void> write_code(const procfs::Procfs& proc, pid_t pid, uint64_t at) {
  const Fd mem = TRY(proc.open_file(pid, "mem", O_RDWR));
  const auto text = kernel::runner_code();
  if (::pwrite(mem.get(), text.data(), text.size(), static_cast<off_t>(at)) != static_cast<ssize_t>(text.size()))
    return fail_sys("write the runner to /proc/PID/mem of", pid_name(pid));
  return {};
}

}  // namespace

std::vector<Result<Runner>> Runner::infect(std::span<const pid_t> pids) {
  std::vector<Passage> passages(pids.size());
  std::vector<Result<uint64_t>> code, arena;
  for (size_t i = 0; i < pids.size(); ++i) {
    auto& p = passages[i];
    p.well = p.begin(pids[i]);
    const auto instruction = p.well ? find_syscall_instruction(pids[i], p.regs) : Result<uint64_t>(0);
    if (!instruction) {
      (void)kernel::set_sigmask(pids[i], p.mask);
      p.well = std::unexpected(instruction.error());
    }
    p.call.instruction = instruction.value_or(0);
    p.call.ia32 = kernel::is_ia32(p.regs);
  }
  auto map = [&](size_t size, int prot) {
    for (auto& p : passages)
      p.call.args = {0, size, static_cast<uint64_t>(prot), MAP_PRIVATE | MAP_ANONYMOUS, ~uint64_t{0}, 0};
    pass(passages, __NR_mmap);
  };
  // Code is mapped r-x and written through /proc/PID/mem, so that a task under
  // PR_SET_MDWE, which may never have writable code, can be driven too.
  map(kernel::kPageSize, PROT_READ | PROT_EXEC);
  for (const auto& p : passages) code.push_back(mapped(p));
  map(kDumpArena, PROT_READ | PROT_WRITE);
  for (const auto& p : passages) arena.push_back(mapped(p));
  take_back_halves(passages, code, arena);
  come_to_rest(passages);
  const auto proc = procfs::Procfs::open();
  std::vector<Result<Runner>> runners;
  for (size_t i = 0; i < pids.size(); ++i)
    runners.push_back([&]() -> Result<Runner> {
      TRY(std::move(passages[i].well));
      Runner runner(pids[i], TRY(std::move(code[i])), TRY(std::move(arena[i])), kDumpArena, nullptr);
      runner.infected_ = true;
      if (!proc) return fail(proc.error());
      TRY(write_code(*proc, pids[i], runner.code_));
      return runner;
    }());
  return runners;
}

std::vector<Result<void>> Runner::cure(std::span<Runner* const> runners) {
  std::vector<Passage> passages(runners.size());
  for (size_t i = 0; i < runners.size(); ++i) {
    passages[i].well = passages[i].begin(runners[i]->pid_);
    // The runner's own `syscall` unmaps even its own page: the stop comes before the next instruction.
    passages[i].call.instruction = runners[i]->code_ + kernel::kRunnerSyscall;
  }
  std::vector<Result<void>> results(runners.size());
  for (const bool arena : {true, false}) {
    for (size_t i = 0; i < runners.size(); ++i)
      passages[i].call.args = {arena ? runners[i]->arena_ : runners[i]->code_,
                               arena ? runners[i]->size_ : size_t{kernel::kPageSize}};
    pass(passages, __NR_munmap);
    for (size_t i = 0; i < runners.size(); ++i)
      if (const int64_t r = passages[i].call.result; passages[i].well && r != 0)
        results[i] = fail(Code::kInternal, cat("munmap of the runner: ", call_error(r)));
  }
  come_to_rest(passages);
  for (size_t i = 0; i < runners.size(); ++i)
    if (!passages[i].well) results[i] = std::move(passages[i].well);
  return results;
}

// Remembers the thread's own state, and lays out what brings it back without us.
Result<void> Runner::prepare_end(pid_t tid) {
  const auto regs = TRY(kernel::get_regs(tid));
  const auto mask = TRY(kernel::get_sigmask(tid));
  // What the last batch of this thread laid out is there still.
  const bool again = saved_.tid == tid && saved_.end.tid != 0 && saved_.mask == mask &&
                     std::memcmp(&saved_.regs, &regs, sizeof(regs)) == 0;
  if (again) {
    saved_.foreign_signal = false;
    return kernel::set_sigmask(tid, ~(uint64_t{1} << (saved_.end.signal - 1)));
  }
  saved_ = Saved{};
  saved_.tid = tid, saved_.regs = regs, saved_.mask = mask;
  auto proc = TRY(procfs::Procfs::open());
  const auto status = TRY(proc.status(tid));
  const uint64_t pending = status.sig_pending | status.shared_pending;
  for (int signal : {SIGURG, SIGWINCH, SIGCHLD}) {
    if (pending >> (signal - 1) & 1) continue;
    kernel::Regs back = saved_.regs;
    kernel::rewind_interrupted_syscall(back);
    const uint64_t at = arena_ + size_ - kFrameSpace;
    const auto frame = kernel::signal_frame(back, saved_.mask, TRY(kernel::get_xstate(tid)), at);
    if (frame.size() > kFrameSpace) break;
    TRY(kernel::vm_write(pid_, at, frame.data(), frame.size()));
    saved_.end = {status.ns_pid.empty() ? tid : status.ns_pid.back(), signal, at};
    break;
  }
  const uint64_t open = saved_.end.tid ? saved_.end.signal : SIGTRAP;
  return kernel::set_sigmask(tid, ~(uint64_t{1} << (open - 1)));
}

// Waits for the end of the batch and tells it from anything else that may stop the thread.
Result<void> Runner::wait_end(pid_t tid) {
  while (true) {
    const auto stop = TRY(next_stop(tid, false));
    const auto regs = TRY(kernel::get_regs(tid));
    if (stop.kind == kernel::Stop::Kind::kSignal && saved_.end.tid == 0 && stop.signal == SIGTRAP &&
        regs.rip == code_ + end_)
      return {};
    if (stop.kind == kernel::Stop::Kind::kSignal && saved_.end.tid != 0 && stop.signal == saved_.end.signal) {
      if (regs.rip == code_ + kernel::kEndBySignal) return {};
      // Somebody outside sent the same signal: it is sent on when the thread is itself again.
      saved_.foreign_signal = true;
      TRY(kernel::cont(tid));
      continue;
    }
    return fail(Error(Code::kInternal, cat("pid ", tid, " stopped with signal ", stop.signal, " at ", hex(regs.rip),
                                           " instead of the end of a batch"))
                    .about(pid_name(tid)));
  }
}

Result<void> Runner::start(Batch& batch, pid_t tid) {
  // Layout: results, calls, data.
  const size_t n = batch.calls_.size();
  const size_t calls_at = (n * 8 + 63) & ~size_t{63};
  const size_t data_at = calls_at + n * sizeof(kernel::RemoteCall);
  if (data_at + batch.data_.size() > size_ - kFrameSpace)
    return fail(Code::kInternal, cat("a batch of ", n, " calls does not fit the arena"));
  if (batch.ia32_ && (infected_ || arena_ + size_ > kernel::kSpace32))
    return fail(Code::kInternal, "a batch of ia32 calls cannot be made here");
  auto value = [&](const Batch::Arg& a) {
    switch (a.kind) {
      case Batch::Arg::Kind::kData: return arena_ + data_at + a.value;
      default: return a.value;
    }
  };
  std::vector<kernel::RemoteCall> calls(n);
  for (size_t i = 0; i < n; ++i) {
    calls[i].nr = batch.calls_[i].nr;
    calls[i].ret = arena_ + i * 8;
    for (int k = 0; k < 6; ++k) calls[i].args[k] = value(batch.calls_[i].args[k]);
  }
  // A result that feeds a later argument is stored straight into that argument; it is
  // found there again afterwards.
  for (size_t i = 0; i < n; ++i)
    for (int k = 0; k < 6; ++k)
      if (const auto& a = batch.calls_[i].args[k]; a.kind == Batch::Arg::Kind::kResultOf)
        calls[a.value].ret = arena_ + calls_at + i * sizeof(kernel::RemoteCall) + 8 + static_cast<size_t>(k) * 8;
  for (const auto& p : batch.pointers_) {
    const uint64_t address = arena_ + data_at + p.of;
    std::memcpy(batch.data_.data() + p.at, &address, 8);
  }
  std::vector<uint8_t> image(data_at + batch.data_.size());
  std::memcpy(image.data() + calls_at, calls.data(), n * sizeof(kernel::RemoteCall));
  if (!batch.data_.empty()) std::memcpy(image.data() + data_at, batch.data_.data(), batch.data_.size());
  if (local_)
    std::memcpy(local_, image.data(), image.size());
  else
    TRY(kernel::vm_write(pid_, arena_, image.data(), image.size()));
  if (infected_) TRY(prepare_end(tid));
  auto regs = TRY(kernel::get_regs(tid));
  end_ = batch.ia32_ ? kernel::kIa32End : kernel::kEndByTrap;
  if (batch.ia32_)
    kernel::aim_ia32_runner(regs, code_, arena_ + calls_at, n);
  else
    kernel::aim_runner(regs, code_, arena_ + calls_at, n, saved_.end);
  TRY(kernel::set_regs(tid, regs));
  return kernel::cont(tid);
}

Result<void> Runner::finish(Batch& batch, pid_t tid) {
  const size_t n = batch.calls_.size();
  TRY(wait_end(tid));
  if (infected_) {
    TRY(kernel::set_regs(tid, saved_.regs));
    TRY(kernel::set_sigmask(tid, saved_.mask));
    if (saved_.foreign_signal) ::kill(pid_, saved_.end.signal);
  }
  const size_t calls_at = (n * 8 + 63) & ~size_t{63};
  const size_t data_at = calls_at + n * sizeof(kernel::RemoteCall);
  std::vector<uint8_t> image(data_at + batch.data_.size());
  if (local_)
    std::memcpy(image.data(), local_, image.size());
  else
    TRY(kernel::vm_read(pid_, arena_, image.data(), image.size()));
  batch.results_.resize(n);
  std::memcpy(batch.results_.data(), image.data(), n * 8);
  for (size_t i = 0; i < n; ++i)
    for (int k = 0; k < 6; ++k)
      if (const auto& a = batch.calls_[i].args[k]; a.kind == Batch::Arg::Kind::kResultOf)
        std::memcpy(&batch.results_[a.value],
                    image.data() + calls_at + i * sizeof(kernel::RemoteCall) + 8 + static_cast<size_t>(k) * 8, 8);
  if (!batch.data_.empty()) std::memcpy(batch.data_.data(), image.data() + data_at, batch.data_.size());
  return {};
}

Result<void> Runner::run(Batch& batch, pid_t tid) {
  if (batch.empty()) return {};
  TRY(start(batch, tid));
  return finish(batch, tid);
}

Result<void> Runner::check(const Batch& batch, pid_t tid) const {
  for (size_t i = 0; i < batch.calls_.size(); ++i)
    if (!batch.calls_[i].what.empty() && batch.failed(i)) {
      errno = static_cast<int>(-batch.result(i));
      return fail(Error::sys(batch.calls_[i].what, cat("in pid ", tid)).about(pid_name(tid)));
    }
  return {};
}

Result<void> Runner::finish_checked(Batch& batch, pid_t tid) {
  TRY(finish(batch, tid));
  return check(batch, tid);
}

Result<void> Runner::run_checked(Batch& batch, pid_t tid) {
  TRY(run(batch, tid));
  return check(batch, tid);
}

}  // namespace stasis::remote
