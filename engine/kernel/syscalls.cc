// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>

namespace stasis::kernel {

pid_t clone3(CloneArgs& args) {
  // The child continues here on a copy of our stack (no CLONE_VM, stack 0), like fork(2).
  return static_cast<pid_t>(::syscall(__NR_clone3, &args, sizeof(args)));
}

void futex_wait(const int& word, int value) { ::syscall(__NR_futex, &word, FUTEX_WAIT, value, nullptr, nullptr, 0); }
void futex_wake(const int& word) { ::syscall(__NR_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0); }

Result<Fd> pidfd_open(pid_t pid, unsigned flags) {
  const long fd = ::syscall(__NR_pidfd_open, pid, flags);
  if (fd < 0) {
    if (errno == ESRCH) return fail_sys(Code::kTaskGone, "pidfd_open", cat("pid ", pid));
    return fail_sys("pidfd_open", cat("pid ", pid));
  }
  return Fd(static_cast<int>(fd));
}

Result<Fd> pidfd_getfd(int pidfd, int fd) {
  const long copy = ::syscall(__NR_pidfd_getfd, pidfd, fd, 0);
  if (copy < 0) return fail_sys("pidfd_getfd", cat("fd ", fd));
  return Fd(static_cast<int>(copy));
}

Result<void> pidfd_send_signal(int pidfd, int signal) {
  if (syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) < 0) return fail_sys("pidfd_send_signal");
  return {};
}

bool pidfd_wait_exit(int pidfd, int timeout_ms) {
  pollfd item{pidfd, POLLIN, 0};
  int n;
  do n = ::poll(&item, 1, timeout_ms);
  while (n < 0 && errno == EINTR);
  return n > 0;
}

Result<Fd> signalfd(uint64_t mask) {
  Fd fd(static_cast<int>(::syscall(__NR_signalfd4, -1, &mask, sizeof mask, O_CLOEXEC)));
  if (!fd) return fail_sys("signalfd");
  return fd;
}

int landlock_version() {
  const long version = ::syscall(__NR_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 0) return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : 1;  // hidden by a filter of ours
  return static_cast<int>(version);
}

Result<void> drop_capabilities() {
  const __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[2] = {};
  return ::syscall(SYS_capset, &header, none) < 0 ? fail_sys("capset") : Result<void>();
}

int kcmp(pid_t a, pid_t b, Kcmp what, unsigned long x, unsigned long y) {
  const long r = ::syscall(__NR_kcmp, a, b, static_cast<int>(what), x, y);
  return r < 0 ? -errno : static_cast<int>(r);
}

long pagemap_scan(int pagemap_fd, ScanArgs& args) {
  args.size = sizeof(args);
  return ::ioctl(pagemap_fd, _IOWR('f', 16, ScanArgs), &args);
}

Result<Fd> open_path_in_root(int dirfd, const std::string& path) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW;
  how.resolve = RESOLVE_IN_ROOT;
  const long fd = ::syscall(__NR_openat2, dirfd, path.c_str(), &how, sizeof(how));
  if (fd < 0) return fail_sys("look up", path);
  return Fd(static_cast<int>(fd));
}

Result<std::string> get_affinity(pid_t tid) {
  std::string mask(1024, '\0');  // 8192 processors, the most a kernel can be built for
  const long bytes = ::syscall(__NR_sched_getaffinity, tid, mask.size(), mask.data());
  if (bytes < 0) return fail_sys("sched_getaffinity", cat("pid ", tid));
  mask.resize(static_cast<size_t>(bytes));
  return mask;
}

Result<void> set_affinity(pid_t tid, std::string_view mask) {
  if (::syscall(__NR_sched_setaffinity, tid, mask.size(), mask.data()) < 0)
    return fail_sys("sched_setaffinity", cat("pid ", tid));
  return {};
}

constexpr int kIoprioWhoProcess = 1;  // include/uapi/linux/ioprio.h

Result<uint32_t> get_ioprio(pid_t tid) {
  const long value = ::syscall(__NR_ioprio_get, kIoprioWhoProcess, tid);
  if (value < 0) return fail_sys("ioprio_get", cat("pid ", tid));
  return static_cast<uint32_t>(value);
}

Result<void> set_ioprio(pid_t tid, uint32_t value) {
  if (::syscall(__NR_ioprio_set, kIoprioWhoProcess, tid, value) < 0) return fail_sys("ioprio_set", cat("pid ", tid));
  return {};
}

Result<RobustList> get_robust_list(pid_t tid) {
  void* head = nullptr;
  size_t length = 0;
  if (::syscall(__NR_get_robust_list, tid, &head, &length) < 0) return fail_sys("get_robust_list", cat("pid ", tid));
  return RobustList{reinterpret_cast<uint64_t>(head), length};
}

Result<void> set_capabilities(uint64_t permitted) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  for (int i = 0; i < 2; ++i) data[i].permitted = data[i].effective = static_cast<uint32_t>(permitted >> (32 * i));
  if (::syscall(__NR_capset, &header, data) < 0) return fail_sys("capset");
  return {};
}

Result<void> new_session_keyring() {
  constexpr int kJoinSessionKeyring = 1;
  if (::syscall(__NR_keyctl, kJoinSessionKeyring, nullptr) < 0 && errno != ENOSYS && errno != EPERM)
    return fail_sys("keyctl(JOIN_SESSION_KEYRING)");
  return {};
}

Result<Fd> peer_pidfd(int socket) {
  constexpr int kPeerPidfd = 77;  // SO_PEERPIDFD
  int fd = -1;
  socklen_t size = sizeof(fd);
  if (::getsockopt(socket, SOL_SOCKET, kPeerPidfd, &fd, &size) < 0) return fail_sys("getsockopt(SO_PEERPIDFD)");
  return Fd(fd);
}

Result<void> setns(int fd, int type, std::string_view name) {
  if (::setns(fd, type) < 0) return fail_sys("setns", name);
  return {};
}

Result<void> unshare(unsigned long flags) {
  if (::syscall(__NR_unshare, flags) < 0) return fail_sys("unshare", hex(flags));
  return {};
}

namespace {
template <class Move>
Result<void> vm_move(pid_t pid, uint64_t remote, void* local, size_t size, Move move, std::string_view name) {
  while (size > 0) {
    iovec mine{local, size}, theirs{reinterpret_cast<void*>(remote), size};
    const ssize_t n = move(pid, &mine, 1, &theirs, 1, 0);
    if (n < 0 && errno == ESRCH) return fail_sys(Code::kTaskGone, name, cat("pid ", pid));
    if (n < 0) return fail_sys(name, cat("pid ", pid, " at ", hex(remote)));
    if (n == 0) return fail(Code::kSystem, cat(name, " pid ", pid, " at ", hex(remote), ": nothing moved"));
    local = static_cast<char*>(local) + n;
    remote += static_cast<uint64_t>(n);
    size -= static_cast<size_t>(n);
  }
  return {};
}
}  // namespace

Result<void> vm_read(pid_t pid, uint64_t from, void* to, size_t size) {
  return vm_move(pid, from, to, size, ::process_vm_readv, "process_vm_readv");
}

Result<void> vm_write(pid_t pid, uint64_t to, const void* from, size_t size) {
  return vm_move(pid, to, const_cast<void*>(from), size, ::process_vm_writev, "process_vm_writev");
}

Result<SchedAttr> get_sched_attr(pid_t tid) {
  SchedAttr attr{};
  if (::syscall(__NR_sched_getattr, tid, &attr, sizeof(attr), 0) < 0)
    return fail_sys("sched_getattr", cat("pid ", tid));
  return attr;
}

Result<void> set_sched_attr(pid_t tid, SchedAttr attr) {
  attr.size = sizeof(attr);
  if (::syscall(__NR_sched_setattr, tid, &attr, 0) < 0) return fail_sys("sched_setattr", cat("pid ", tid));
  return {};
}

uint64_t core_cookie(pid_t tid) {
  uint64_t cookie = 0;
  return ::prctl(62 /* PR_SCHED_CORE */, 0 /* GET */, tid, 0 /* of the thread */, &cookie) == 0 ? cookie : 0;
}

}  // namespace stasis::kernel
