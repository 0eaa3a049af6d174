// SPDX-License-Identifier: Apache-2.0
// What /proc says of a task. parse_* are pure functions over captured text; class
// Procfs reads through one directory descriptor, which may be another mount of /proc
// or, in tests, a plain directory.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::procfs {

// /proc/PID/stat, fs/proc/array.c do_task_stat(). Numbers are in the reader's pid namespace.
struct Stat {
  pid_t pid = 0;
  std::string comm;
  char state = '?';  // R S D T t Z X I
  pid_t ppid = 0, pgrp = 0, session = 0;
  int tty_nr = 0;
  pid_t tpgid = 0;
  long nice = 0;
  uint64_t start_time = 0;  // clock ticks since boot
  uint64_t start_code = 0, end_code = 0, start_stack = 0;
  uint32_t rt_priority = 0, policy = 0;
  uint64_t start_data = 0, end_data = 0, start_brk = 0;
  uint64_t arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
  int exit_signal = 17;  // to the parent
  int exit_code = 0;
};
Result<Stat> parse_stat(std::string_view text);

// /proc/PID/status, fs/proc/array.c proc_pid_status(). Id lists run from the reader's
// pid namespace to the innermost one.
struct Status {
  std::string name;
  uint32_t umask = 022;
  char state = '?';
  pid_t tgid = 0, ppid = 0, tracer_pid = 0;
  uint32_t uid[4] = {}, gid[4] = {};  // real, effective, saved, fs
  std::vector<uint32_t> groups;
  std::vector<pid_t> ns_tgid, ns_pid, ns_pgid, ns_sid;
  uint32_t threads = 0;
  uint64_t locked_kb = 0;  // VmLck
  uint64_t sig_pending = 0, shared_pending = 0, sig_blocked = 0, sig_ignored = 0, sig_caught = 0;
  uint64_t cap_inheritable = 0, cap_permitted = 0, cap_effective = 0, cap_bounding = 0, cap_ambient = 0;
  uint32_t no_new_privs = 0, seccomp = 0;
};
Result<Status> parse_status(std::string_view text);

// One line of /proc/PID/smaps or maps, fs/proc/task_mmu.c show_map_vma().
struct Map {
  uint64_t start = 0, end = 0;
  bool read = false, write = false, exec = false, shared = false;
  uint64_t offset = 0;
  uint32_t dev_major = 0, dev_minor = 0;
  uint64_t inode = 0;
  std::string name;                        // path, "[heap]", ...; as shown, " (deleted)" included
  std::vector<std::string> vm_flags;       // smaps "VmFlags:"; empty from maps
  uint64_t page_kb = 0;                    // smaps "KernelPageSize:"
  std::optional<uint32_t> protection_key;  // smaps "ProtectionKey:", pkeys(7); a processor may have none

  uint64_t size() const { return end - start; }
  bool flag(std::string_view two_letters) const;
};
Result<std::vector<Map>> parse_smaps(std::string_view text);  // also reads plain maps

// The common head of /proc/PID/fdinfo/N, fs/proc/fd.c seq_show(), and the rest by line.
struct FdInfo {
  uint64_t pos = 0;
  uint32_t flags = 0;  // O_*, O_CLOEXEC included
  int mnt_id = -1;
  uint64_t inode = 0;             // since 5.14, else 0
  std::vector<std::string> rest;  // lines after the head, "lock:\t..." among them
};
Result<FdInfo> parse_fdinfo(std::string_view text);

// /proc/PID/limits as pairs in RLIMIT_* order; ~0 = unlimited.
struct Limit {
  uint64_t soft = 0, hard = 0;
};
Result<std::vector<Limit>> parse_limits(std::string_view text);

// /proc/PID/timers, fs/proc/base.c show_timer(): what timer_create(2) has made, in no order.
struct PosixTimer {
  int id = 0, signal = 0;
  uint64_t value = 0;  // sigev_value
  int notify = 0;      // SIGEV_*
  pid_t target = 0;    // with SIGEV_THREAD_ID the thread, in the pid namespace of this /proc
  int clock = 0;
};
Result<std::vector<PosixTimer>> parse_timers(std::string_view text);

// The sleeps of /proc/timer_list, kernel/time/timer_list.c: which tasks they are of it does not say.
struct SleepTimer {
  int clock = 0;     // base: 0 monotonic, 1 realtime, 2 boottime, 3 TAI
  uint64_t end = 0;  // ns of that clock
  int64_t left = 0;  // ns from when the list was made
};
Result<std::vector<SleepTimer>> parse_timer_list(std::string_view text);

struct NsId {
  uint64_t dev = 0, inode = 0;
  bool operator==(const NsId&) const = default;
};

class Procfs {
 public:
  // Opens /proc.
  static Result<Procfs> open();
  explicit Procfs(Fd root) : root_(std::move(root)) {}

  int fd() const { return root_.get(); }
  Result<Stat> stat(pid_t pid) const;
  Result<Status> status(pid_t pid) const;
  Result<Stat> thread_stat(pid_t pid, pid_t tid) const;
  Result<Status> thread_status(pid_t pid, pid_t tid) const;
  Result<std::vector<Map>> smaps(pid_t pid) const;
  Result<FdInfo> fdinfo(pid_t pid, int fd) const;
  Result<std::vector<Limit>> limits(pid_t pid) const;
  Result<std::string> text(pid_t pid, const std::string& file) const;
  Result<std::string> link(pid_t pid, const std::string& file) const;
  Result<Fd> open_file(pid_t pid, const std::string& file, int flags) const;
  Result<NsId> ns(pid_t pid, const std::string& name) const;  // "pid", "mnt", ...
  Result<std::vector<int>> fds(pid_t pid) const;              // ascending
  Result<std::vector<pid_t>> threads(pid_t pid) const;        // ascending, leader first
  Result<std::vector<pid_t>> children(pid_t pid) const;       // of all threads, in birth order
  Result<std::vector<SleepTimer>> sleep_timers() const;
  // Every process, for finding those that entered a namespace from outside.
  Result<std::vector<pid_t>> processes() const;

 private:
  Fd root_;
};

}  // namespace stasis::procfs
