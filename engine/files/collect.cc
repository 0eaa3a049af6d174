// SPDX-License-Identifier: Apache-2.0
#include "engine/files/collect.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"

namespace stasis::files {
namespace {

std::string map_link(uint64_t start, uint64_t end) {
  return cat("map_files/", hex(start).substr(2), "-", hex(end).substr(2));
}

}  // namespace

Result<std::vector<Candidate>> read_fds(const procfs::Procfs& proc, pid_t pid, int pidfd) {
  std::vector<Candidate> out;
  for (int fd : TRY(proc.fds(pid))) {
    Candidate c;
    c.pid = pid;
    c.fd = fd;
    auto copy = kernel::pidfd_getfd(pidfd, fd);
    if (!copy && copy.error().sys_errno() == EBADF) continue;  // closed meanwhile; cannot be when frozen
    c.copy = TRY_CTX(std::move(copy), "pid ", pid);
    if (::fstat(c.copy.get(), &c.st) < 0) return fail_sys("fstat", cat("pid ", pid, " fd ", fd));
    auto info = proc.fdinfo(pid, fd);
    auto link = proc.link(pid, cat("fd/", fd));
    if (!info || !link) continue;
    c.info = *std::move(info);
    c.link = *std::move(link);
    out.push_back(std::move(c));
  }
  return out;
}

Result<Candidate> read_special(const procfs::Procfs& proc, pid_t pid, const std::string& link) {
  Candidate c;
  c.pid = pid;
  c.copy = TRY(proc.open_file(pid, link, O_PATH));
  if (::fstat(c.copy.get(), &c.st) < 0) return fail_sys("fstat", cat("pid ", pid, " ", link));
  c.info = TRY(proc.fdinfo(::getpid(), c.copy.get()));
  c.link = TRY(proc.link(pid, link));
  return c;
}

void find_obstacles(const DumpEnv& env, pid_t pid, int pidfd, std::vector<Error>& obstacles) {
  auto note = [&](auto&& result) {
    if (!result) obstacles.push_back(std::move(result).error());
  };
  auto fds = read_fds(env.proc, pid, pidfd);
  if (!fds) return note(std::move(fds));
  for (const auto& c : *fds) {
    note(kind_of(c).check(c, env));
    note(check_signals(c, env));
  }
  for (const char* link : {"cwd", "root", "exe"}) {
    auto c = read_special(env.proc, pid, link);
    if (c)
      note(path_in_container(*c, env));
    else if (c.error().code() != Code::kTaskGone)
      note(std::move(c));
  }
}

void find_mapped_obstacles(const DumpEnv& env, pid_t pid, uint64_t start, uint64_t end, std::vector<Error>& obstacles) {
  auto c = read_special(env.proc, pid, map_link(start, end));
  if (!c) return;  // not mapped any more
  if (auto path = path_in_container(*c, env); !path) obstacles.push_back(std::move(path).error());
}

Result<uint32_t> Collector::id_of(const Candidate& c) {
  auto& same_inode = known_[{c.st.st_dev, c.st.st_ino}];
  // kcmp(2) puts open files in an order: thousands of one inode are not compared all with all.
  size_t first = 0, last = same_inode.size();
  while (first < last) {
    const size_t middle = (first + last) / 2;
    const auto& k = same_inode[middle];
    const int r = kernel::kcmp(k.pid, c.pid, kernel::Kcmp::kFile, static_cast<unsigned long>(k.fd),
                               static_cast<unsigned long>(c.fd));
    if (r < 0) {
      errno = -r;
      return fail_sys("kcmp", c.name());
    }
    if (r == 0) return k.id;
    r == 1 ? first = middle + 1 : last = middle;
  }
  const auto& kind = kind_of(c);
  TRY(kind.check(c, env_));
  pb::file_entry entry;
  entry.set_id(out_.next_file_id++);
  TRY_CTX(kind.dump(c, env_, out_, entry), c.name());
  TRY(dump_signals(c, env_, entry));
  same_inode.insert(same_inode.begin() + static_cast<long>(first), {c.pid, c.fd, entry.id()});
  out_.files.push_back(entry);
  return entry.id();
}

Result<uint32_t> Collector::dump_path(Candidate c, int open_flags) {
  const auto key = std::make_tuple(c.st.st_dev, c.st.st_ino, c.info.mnt_id, open_flags, c.link);
  if (const auto at = paths_.find(key); at != paths_.end()) return at->second;
  c.info.flags = static_cast<uint32_t>(open_flags);
  c.info.pos = 0;
  pb::file_entry entry;
  entry.set_id(out_.next_file_id++);
  TRY((kMemfd.matches(c) ? kMemfd : kRegular).dump(c, env_, out_, entry));
  out_.files.push_back(entry);
  paths_[key] = entry.id();
  return entry.id();
}

Result<TaskFiles> Collector::dump_task(const tasks::Process& process, bool descriptors) {
  TaskFiles out;
  std::vector<Candidate> own;
  if (descriptors) own = TRY(read_fds(env_.proc, process.pid, process.pidfd.get()));
  for (const auto& c : own) {
    auto& e = out.fds.emplace_back();
    e.set_id(TRY(id_of(c)));
    e.set_flags(c.info.flags & O_CLOEXEC ? FD_CLOEXEC : 0);
    e.set_type(kind_of(c).type);
    e.set_fd(static_cast<uint32_t>(c.fd));
    out_.descriptors.push_back({c.pid, c.fd, e.id()});
    TRY(note_locks(c, env_, e.id(), out_.locks));
  }
  out.cwd_id = TRY(dump_path(TRY(read_special(env_.proc, process.pid, "cwd")), O_RDONLY | O_DIRECTORY));
  out.root_id = TRY(dump_path(TRY(read_special(env_.proc, process.pid, "root")), O_RDONLY | O_DIRECTORY));
  out.exe_id = TRY(dump_path(TRY(read_special(env_.proc, process.pid, "exe")), O_RDONLY));
  return out;
}

Result<TaskFiles> Collector::dump_thread(pid_t pid, pid_t tid) {
  TaskFiles out;
  out.cwd_id = TRY(dump_path(TRY(read_special(env_.proc, pid, cat("task/", tid, "/cwd"))), O_RDONLY | O_DIRECTORY));
  out.root_id = TRY(dump_path(TRY(read_special(env_.proc, pid, cat("task/", tid, "/root"))), O_RDONLY | O_DIRECTORY));
  return out;
}

Result<uint32_t> Collector::dump_mapped(pid_t pid, const procfs::Map& map, int open_flags) {
  const bool has_name = !map.name.ends_with(" (deleted)");
  const auto key = std::make_tuple(map.dev_major, map.dev_minor, map.inode, map.name, open_flags);
  if (const auto at = mapped_.find(key); has_name && at != mapped_.end()) return at->second;
  auto c = TRY(read_special(env_.proc, pid, map_link(map.start, map.end)));
  const uint32_t id = TRY(dump_path(std::move(c), open_flags));
  if (has_name) mapped_[key] = id;
  return id;
}

}  // namespace stasis::files
