// SPDX-License-Identifier: Apache-2.0
// Probes of what the running kernel offers, once per call, never by version.
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/engine.h"
#include "engine/files/inet_options.h"
#include "engine/files/net_lock.h"
#include "engine/kernel/syscalls.h"
#include "engine/kernel/x86_64/ia32.h"

namespace stasis {
namespace {

bool has_syscall(long nr) { return ::syscall(nr, -1, 0, 0, 0, 0, 0) >= 0 || errno != ENOSYS; }

bool has_pagemap_scan() {
  const Fd fd(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (!fd) return false;
  kernel::ScanArgs args{};
  args.start = reinterpret_cast<uint64_t>(&args) & ~uint64_t{4095};
  args.end = args.start + 4096;
  args.category_anyof_mask = args.return_mask = kernel::kPageIsPresent;
  kernel::PageRegion region{};
  args.vec = reinterpret_cast<uint64_t>(&region);
  args.vec_len = 1;
  return kernel::pagemap_scan(fd.get(), args) >= 0;
}

bool has_set_tid() {
  // An impossible pid: EINVAL of a kernel that looks at it, E2BIG of one that does not know the field.
  const pid_t pid = -1;
  kernel::CloneArgs args{};
  args.exit_signal = SIGCHLD;
  args.set_tid = reinterpret_cast<uint64_t>(&pid);
  args.set_tid_size = 1;
  return kernel::clone3(args) < 0 && errno != ENOSYS && errno != E2BIG;
}

bool has_buffer_lock() {
  const Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return fd && files::get_int(fd.get(), SOL_SOCKET, 72 /*SO_BUF_LOCK*/).has_value();
}

bool readable(const char* path) { return ::access(path, R_OK) == 0; }

}  // namespace

std::vector<KernelFeature> kernel_features() {
  const pid_t self = ::getpid();
  std::vector<KernelFeature> out;
  auto add = [&](const char* name, const char* what, bool required, bool present) {
    out.push_back({name, what, required, present});
  };
  add("clone3_set_tid", "processes and threads are created with chosen ids (5.5)", true, has_set_tid());
  add("pidfd_getfd", "open files of a task are looked at through copies (5.6)", true, has_syscall(__NR_pidfd_getfd));
  add("kcmp", "shared open files are found (CONFIG_KCMP)", true,
      kernel::kcmp(self, self, kernel::Kcmp::kFile, 0, 0) != -ENOSYS);
  add("openat2", "paths are looked up inside the container's root (5.6)", true, has_syscall(__NR_openat2));
  add("close_range", "descriptors are closed in ranges (5.9)", true, has_syscall(__NR_close_range));
  add("checkpoint_restore", "CONFIG_CHECKPOINT_RESTORE: /proc/PID/map_files, timers, PR_GET_TID_ADDRESS", true,
      readable("/proc/self/map_files") && readable("/proc/self/timers"));
  add("proc_children", "/proc/PID/task/TID/children (CONFIG_PROC_CHILDREN)", true, readable("/proc/self/task"));
  add("mount_setattr", "mount flags are set with mount_setattr (5.12)", false, has_syscall(__NR_mount_setattr));
  add("pagemap_scan", "pages are found with PAGEMAP_SCAN (6.7), else /proc/PID/pagemap", false, has_pagemap_scan());
  add("get_rseq_conf", "restartable sequences are read (5.13)", false, has_syscall(__NR_rseq));
  add("cgroupns", "cgroup namespaces", false, readable("/proc/self/ns/cgroup"));
  const bool locks = files::lock_tables().has_value();
  add("network_lock_nftables", "connections are locked by nftables where their network goes on", false, locks);
  add("sockopt_buf_lock", "whether a socket's buffers grow is read (5.14)", false, has_buffer_lock());
  add("compat_cr", "programs of 32-bit code run (CONFIG_IA32_EMULATION)", false, kernel::runs_ia32());
  add("timens", "time namespaces", false, readable("/proc/self/ns/time"));
  add("userns", "user namespaces", false, readable("/proc/self/ns/user"));
  return out;
}

}  // namespace stasis
