// SPDX-License-Identifier: Apache-2.0
// System calls and kernel structures that glibc 2.36 lacks or hides behind its own
// state. The only place with syscall(2). Layouts are those of include/uapi/linux.
#pragma once

#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <span>
#include <string>

#include "engine/base/fd.h"
#include "engine/base/result.h"

#ifndef __NR_pidfd_getfd
#define __NR_pidfd_getfd 438
#endif

namespace stasis::kernel {

constexpr uint64_t kPageSize = 4096;

// include/uapi/linux/sched.h, struct clone_args up to `cgroup` (5.7).
struct CloneArgs {
  uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};
// fork(2)-like clone3(2): returns 0 in the child, the pid in the parent, -1 with errno.
pid_t clone3(CloneArgs& args);

// futex(2) in memory that processes share: waits as long as the word has this value; wakes all who wait.
void futex_wait(const int& word, int value);
void futex_wake(const int& word);

Result<Fd> pidfd_open(pid_t pid, unsigned flags = 0);
constexpr unsigned kPidfdThread = 0200 /* O_EXCL */;  // PIDFD_THREAD of linux/pidfd.h, since Linux 6.9
// signalfd(2) with the mask as it is: glibc leaves out the signals that it uses itself.
Result<Fd> signalfd(uint64_t mask);
// A copy of descriptor `fd` of the process; needs PTRACE_MODE_ATTACH_REALCREDS.
Result<Fd> pidfd_getfd(int pidfd, int fd);
Result<void> pidfd_send_signal(int pidfd, int signal);
// True when the process has exited (is a zombie or gone), waiting up to timeout_ms (-1: for ever).
bool pidfd_wait_exit(int pidfd, int timeout_ms);

enum class Kcmp { kFile = 0, kVm = 1, kFiles = 2, kFs = 3, kSighand = 4, kIo = 5, kSysvsem = 6, kEpollTfd = 7 };
// The file of an epoll's entry, for kEpollTfd; its address is `y`.
struct EpollSlot {
  uint32_t epoll = 0, number = 0, nth = 0;
};
// kcmp(2): 0 equal, 1 less, 2 greater, 3 not equal; negative errno.
// LANDLOCK_CREATE_RULESET_VERSION; 0 if the kernel has none.
int landlock_version();
// Of the calling process, from all sets that capset(2) knows.
Result<void> drop_capabilities();
int kcmp(pid_t a, pid_t b, Kcmp what, unsigned long x = 0, unsigned long y = 0);

// fs/proc/task_mmu.c PAGEMAP_SCAN (6.7). Struct and constants of include/uapi/linux/fs.h.
struct PageRegion {
  uint64_t start, end, categories;
};
constexpr uint64_t kPageIsWpAllowed = 1 << 0, kPageIsWritten = 1 << 1, kPageIsFile = 1 << 2, kPageIsPresent = 1 << 3,
                   kPageIsSwapped = 1 << 4, kPageIsPfnzero = 1 << 5, kPageIsHuge = 1 << 6, kPageIsGuard = 1 << 8;
struct ScanArgs {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask,
      category_anyof_mask, return_mask;
};
// ioctl(PAGEMAP_SCAN) on /proc/PID/pagemap; number of regions or -1 with errno (ENOTTY: kernel has none).
long pagemap_scan(int pagemap_fd, ScanArgs& args);

// rt_sigaction(2) as the kernel sees it.
struct KernelSigaction {
  uint64_t handler, flags, restorer, mask;
};

// include/uapi/linux/prctl.h struct prctl_mm_map, for PR_SET_MM_MAP.
struct PrctlMmMap {
  uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start,
      env_end;
  uint64_t auxv;
  uint32_t auxv_size, exe_fd;
};

// openat2(2) below `dirfd` as below a root directory; no descriptor is opened for reading (O_PATH).
Result<Fd> open_path_in_root(int dirfd, const std::string& path);

// sched_setaffinity(2) with the kernel's own mask length, as many bytes as the kernel has.
Result<std::string> get_affinity(pid_t tid);
Result<void> set_affinity(pid_t tid, std::string_view mask);
// ioprio_get(2), ioprio_set(2) of one thread.
Result<uint32_t> get_ioprio(pid_t tid);
Result<void> set_ioprio(pid_t tid, uint32_t value);
// sched_getattr(2), struct sched_attr of include/uapi/linux/sched/types.h with utilisation clamps (5.3).
struct SchedAttr {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
  uint32_t util_min, util_max;
};
Result<SchedAttr> get_sched_attr(pid_t tid);
Result<void> set_sched_attr(pid_t tid, SchedAttr attr);
// prctl(PR_SCHED_CORE): which cookie the thread has; 0: none, or the kernel knows none.
uint64_t core_cookie(pid_t tid);
// get_robust_list(2): address and length.
struct RobustList {
  uint64_t head = 0, length = 0;
};
Result<RobustList> get_robust_list(pid_t tid);

// capset(2) of this thread: permitted and effective; nothing is inheritable.
Result<void> set_capabilities(uint64_t permitted);
// keyctl(2): a session keyring of our own, so that that of the parent is not passed on. Kernels without keyrings pass.
Result<void> new_session_keyring();
// SO_PEERPIDFD (6.5), unix(7): the process that connected, however long ago; an error where the kernel lacks it.
Result<Fd> peer_pidfd(int socket);
Result<void> setns(int fd, int type, std::string_view name);
Result<void> unshare(unsigned long flags);
// Copies memory of another process; both fail unless every byte was moved.
Result<void> vm_read(pid_t pid, uint64_t from, void* to, size_t size);
Result<void> vm_write(pid_t pid, uint64_t to, const void* from, size_t size);

}  // namespace stasis::kernel
