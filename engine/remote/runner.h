// SPDX-License-Identifier: Apache-2.0
// Runs batches in a stopped thread. The code page and the arena are either mapped into
// the task by infect() and taken out by cure() (dump), or were there before the task was
// cloned (restore), where the arena is memory shared with the engine.
#pragma once

#include <cstdint>
#include <span>

#include "engine/base/result.h"
#include "engine/kernel/ptrace.h"
#include "engine/remote/batch.h"

namespace stasis::remote {

class Runner {
 public:
  // An arena that is already in the task: code page at `code`, then `size` bytes at `arena`,
  // seen here at `local` (nullptr: moved by process_vm_*).
  Runner(pid_t pid, uint64_t code, uint64_t arena, size_t size, uint8_t* local)
      : pid_(pid), code_(code), arena_(arena), size_(size), local_(local) {}

  // Maps code and arena into the processes of the stopped threads `pids`, all at once. A thread of an infected
  // process has its own registers and mask back after every batch, and gets them back by
  // itself if the engine is killed in the middle of one (x86_64/runner.h). What a killed
  // engine leaves behind are the two mappings.
  static std::vector<Result<Runner>> infect(std::span<const pid_t> pids);
  // Unmaps them again.
  static std::vector<Result<void>> cure(std::span<Runner* const> runners);

  // Runs every call on thread `tid` (of this process). Fails only if the task dies or stops oddly.
  Result<void> run(Batch& batch, pid_t tid);
  Result<void> run(Batch& batch) { return run(batch, pid_); }
  // The same, and every call named by must() has to succeed.
  Result<void> run_checked(Batch& batch, pid_t tid);
  Result<void> run_checked(Batch& batch) { return run_checked(batch, pid_); }
  // Starts a batch without waiting (to run several tasks at once), and collects it.
  Result<void> start(Batch& batch, pid_t tid);
  Result<void> finish(Batch& batch, pid_t tid);
  Result<void> finish_checked(Batch& batch, pid_t tid);

  pid_t pid() const { return pid_; }
  uint64_t code() const { return code_; }
  uint64_t arena() const { return arena_; }
  size_t arena_size() const { return size_; }

 private:
  struct Saved {  // of the thread that is being driven, or was last
    pid_t tid = 0;
    kernel::Regs regs{};
    uint64_t mask = 0;
    kernel::RunnerEnd end;
    bool foreign_signal = false;  // one of the end's kind came from somebody else meanwhile
  };
  Result<void> check(const Batch& batch, pid_t tid) const;
  Result<void> prepare_end(pid_t tid);
  Result<void> wait_end(pid_t tid);
  pid_t pid_;
  uint64_t code_, arena_;
  size_t size_;
  uint8_t* local_;
  bool infected_ = false;
  uint64_t end_ = kernel::kEndByTrap;  // where the batch that runs comes to its trap
  Saved saved_;
};

// Brings a stopped thread to a PTRACE_EVENT_STOP, where setting its registers keeps the
// restart of an interrupted system call working.
Result<void> to_event_stop(pid_t tid);
// One system call at a `syscall` instruction of the task itself, by single steps of
// PTRACE_SYSCALL; for when there is no runner yet or no longer.
Result<int64_t> classic_syscall(pid_t tid, uint64_t instruction, long nr, std::span<const uint64_t> args);
// Where a `syscall` instruction (of 32-bit code: `int $0x80`) is in the task's memory: behind rip, or in its vDSO.
Result<uint64_t> find_syscall_instruction(pid_t tid, const kernel::Regs& regs);

}  // namespace stasis::remote
