// SPDX-License-Identifier: Apache-2.0
#include "engine/procfs/procfs.h"

#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>

#include "engine/base/io.h"

namespace stasis::procfs {
namespace {

std::string at(pid_t pid, std::string_view file) { return cat(pid, "/", file); }

// A file of a task that is gone is ENOENT (the directory) or ESRCH (an open one).
template <class T>
Result<T> gone(Result<T> result, pid_t pid) {
  if (result || (result.error().sys_errno() != ENOENT && result.error().sys_errno() != ESRCH)) return result;
  return fail(std::move(result).error().with_code(Code::kTaskGone).about(cat("pid ", pid)));
}

template <class Int>
std::vector<Int> numbers(const std::vector<std::string>& names) {
  std::vector<Int> out;
  for (const auto& name : names)
    if (auto value = parse_int<Int>(name)) out.push_back(*value);
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

Result<Procfs> Procfs::open() {
  Fd root = TRY(open_at(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY));
  struct statfs fs {};
  if (::fstatfs(root.get(), &fs) < 0 || fs.f_type != 0x9fa0)
    return fail(Code::kKernelFeature, "/proc is not a proc file system");
  return Procfs(std::move(root));
}

Result<std::string> Procfs::text(pid_t pid, const std::string& file) const {
  return gone(read_file_at(root_.get(), at(pid, file)), pid);
}
Result<std::string> Procfs::link(pid_t pid, const std::string& file) const {
  return read_link_at(root_.get(), at(pid, file));
}
Result<Fd> Procfs::open_file(pid_t pid, const std::string& file, int flags) const {
  return open_at(root_.get(), at(pid, file), flags);
}

Result<Stat> Procfs::stat(pid_t pid) const { return parse_stat(TRY(text(pid, "stat"))); }
Result<Status> Procfs::status(pid_t pid) const { return gone(parse_status(TRY(text(pid, "status"))), pid); }
Result<Stat> Procfs::thread_stat(pid_t pid, pid_t tid) const {
  return parse_stat(TRY(text(pid, cat("task/", tid, "/stat"))));
}
Result<Status> Procfs::thread_status(pid_t pid, pid_t tid) const {
  return gone(parse_status(TRY(text(pid, cat("task/", tid, "/status")))), pid);
}
Result<std::vector<Map>> Procfs::smaps(pid_t pid) const { return parse_smaps(TRY(text(pid, "smaps"))); }
Result<FdInfo> Procfs::fdinfo(pid_t pid, int fd) const { return parse_fdinfo(TRY(text(pid, cat("fdinfo/", fd)))); }
Result<std::vector<Limit>> Procfs::limits(pid_t pid) const { return parse_limits(TRY(text(pid, "limits"))); }

Result<NsId> Procfs::ns(pid_t pid, const std::string& name) const {
  struct stat st {};
  const std::string path = at(pid, "ns/" + name);
  if (::fstatat(root_.get(), path.c_str(), &st, 0) < 0) return fail_sys("stat /proc", path);
  return NsId{st.st_dev, st.st_ino};
}

Result<std::vector<int>> Procfs::fds(pid_t pid) const {
  return numbers<int>(TRY(gone(list_dir(root_.get(), at(pid, "fd")), pid)));
}

Result<std::vector<pid_t>> Procfs::threads(pid_t pid) const {
  auto tids = numbers<pid_t>(TRY(gone(list_dir(root_.get(), at(pid, "task")), pid)));
  // Tids may be smaller than the leader's after the numbers wrapped round.
  const auto leader = std::find(tids.begin(), tids.end(), pid);
  if (leader != tids.end()) std::rotate(tids.begin(), leader, leader + 1);
  return tids;
}

Result<std::vector<pid_t>> Procfs::children(pid_t pid) const {
  std::vector<pid_t> out;
  for (pid_t tid : TRY(threads(pid))) {
    auto list = text(pid, cat("task/", tid, "/children"));
    if (!list && list.error().code() == Code::kTaskGone) continue;  // a thread that ended meanwhile
    const std::string text = TRY(std::move(list));
    for (auto field : fields(text))
      if (auto child = parse_int<pid_t>(field)) out.push_back(*child);
  }
  return out;
}

Result<std::vector<SleepTimer>> Procfs::sleep_timers() const {
  return parse_timer_list(TRY(read_file_at(root_.get(), "timer_list")));
}

Result<std::vector<pid_t>> Procfs::processes() const { return numbers<pid_t>(TRY(list_dir(root_.get(), "."))); }

}  // namespace stasis::procfs
