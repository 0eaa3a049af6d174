// SPDX-License-Identifier: Apache-2.0
#include "engine/preflight.h"

#include <elf.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "engine/client_check.h"
#include "engine/device_filters.h"
#include "engine/engine.h"
#include "engine/files/collect.h"
#include "engine/kernel/syscalls.h"
#include "engine/kernel/x86_64/ia32.h"
#include "engine/memory/outside.h"
#include "engine/memory/vma.h"
#include "engine/namespaces/namespaces.h"
#include "engine/tasks/labels.h"
#include "engine/tasks/sharing.h"
#include "engine/tasks/switches.h"
#include "mounts/dump.h"

namespace stasis {
namespace {

Error unsupported(const tasks::Process& p, std::string what) {
  return Error(Code::kUnsupported, cat("pid ", p.pid, " (", p.stat.comm, ") ", what)).about(cat("pid ", p.pid));
}

// A thread may have its own root and cwd, unshare(2), but not share them with some other threads only.
void check_threads(const procfs::Procfs& proc, const tasks::Process& p, std::vector<Error>& obstacles) {
  const auto tids = proc.threads(p.pid);
  if (!tids) return;
  std::vector<pid_t> apart;
  for (pid_t tid : *tids) {
    if (tid == p.pid || tid == p.tgid) continue;
    if (kernel::kcmp(p.pid, tid, kernel::Kcmp::kFiles) > 0)
      obstacles.push_back(unsupported(p, cat("has a thread ", tid, " with its own file table")));
    if (kernel::kcmp(p.pid, tid, kernel::Kcmp::kFs) <= 0) continue;
    const auto other =
        std::ranges::find_if(apart, [&](pid_t t) { return kernel::kcmp(t, tid, kernel::Kcmp::kFs) == 0; });
    if (other != apart.end())
      obstacles.push_back(unsupported(p, cat("has threads ", *other, " and ", tid, " with a root and cwd in common")));
    apart.push_back(tid);
  }
}

// A session or group whose leader lives outside cannot be joined again after restore.
void check_session(const procfs::Procfs& proc, const tasks::Process& p, const std::vector<tasks::Process>& tree,
                   const Options& options, std::vector<Error>& obstacles) {
  if (options.shell_job) return;
  auto in_tree = [&](pid_t npid) {
    return std::any_of(tree.begin(), tree.end(), [&](const auto& q) { return q.npid == npid; });
  };
  auto lives_outside = [&](pid_t npid) {
    if (npid == 0) return true;
    if (in_tree(npid)) return false;
    // Only where the container shares our pid namespace can the number be somebody else's.
    return p.tgid == p.npid && proc.stat(npid).has_value();
  };
  if (lives_outside(p.nsid))
    obstacles.push_back(
        unsupported(p, cat("belongs to session ", p.nsid, " of a process outside; --shell-job allows it")));
  else if (lives_outside(p.npgid))
    obstacles.push_back(
        unsupported(p, cat("belongs to process group ", p.npgid, " of a process outside; --shell-job allows it")));
}

// Which code has asked for a signal's handler nobody can tell, so it has to be what the program is: all of 64 bits or
// all of 32. The ELF header says it, elf(5), and the code segment of each thread once it is stopped.
void check_bitness(const procfs::Procfs& proc, const tasks::Process& p, std::vector<Error>& obstacles) {
  const auto exe = proc.open_file(p.pid, "exe", O_RDONLY);
  Elf32_Ehdr head{};
  if (!exe || ::pread(exe->get(), &head, sizeof(head), 0) != sizeof(head)) return;
  const bool ia32 = head.e_ident[EI_CLASS] == ELFCLASS32;
  if (ia32 && head.e_machine != EM_386) return obstacles.push_back(unsupported(p, "is a program of the x32 ABI"));
  for (const auto& t : p.threads) {
    if (t.exited) continue;
    if (t.regs.cs != (ia32 ? kernel::kCodeSegment32 : kernel::kCodeSegment))
      return obstacles.push_back(
          unsupported(p, cat("is a ", ia32 ? 32 : 64, "-bit program that runs other code: thread ", t.tid,
                             " has the code segment ", hex(t.regs.cs))));
  }
}

// A debugger may have only some of the threads.
void check_tracer(const procfs::Procfs& proc, const tasks::Process& p, std::vector<Error>& obstacles) {
  const auto tids = proc.threads(p.pid);
  if (!tids) return;
  for (pid_t tid : *tids) {
    const auto status = proc.thread_status(p.pid, tid);
    if (!status || status->tracer_pid == 0) continue;
    const auto tracer = proc.stat(status->tracer_pid);
    obstacles.push_back(
        Error(Code::kTraced, cat(tid == p.pid ? "pid " : "thread ", tid, " (", status->name, ") is traced by pid ",
                                 status->tracer_pid, tracer ? cat(" (", tracer->comm, ")") : std::string(),
                                 status->state == 't' ? ", and stopped by it" : ""))
            .about(cat("pid ", p.pid)));
    return;
  }
}

}  // namespace

void check_process(const procfs::Procfs& proc, const tasks::Process& p, const std::vector<tasks::Process>& tree,
                   const Options& options, std::vector<Error>& obstacles) {
  check_session(proc, p, tree, options, obstacles);
  if (p.zombie) return;
  check_bitness(proc, p, obstacles);
  check_threads(proc, p, obstacles);
  tasks::find_switch_obstacles(proc, p, obstacles);
  tasks::find_label_obstacles(proc, p, options, obstacles);
}

// A vfork(2) ends by itself; the freeze waits for it.
bool is_vfork(const tasks::Process& a, const tasks::Process& b) {
  return (a.tgid == b.parent && a.stat.state == 'D') || (b.tgid == a.parent && b.stat.state == 'D');
}

void check_sharing(const std::vector<tasks::Process>& tree, const Options& options, std::vector<Error>& obstacles) {
  for (const auto& [pid, with] : tasks::find_shared(tree, kernel::Kcmp::kVm)) {
    const auto p = std::ranges::find(tree, pid, &tasks::Process::pid);
    const auto other = std::ranges::find(tree, with, &tasks::Process::pid);
    if (!is_vfork(*other, *p)) obstacles.push_back(unsupported(*p, cat("shares its memory with pid ", with)));
  }
  const auto files = tasks::find_shared(tree, kernel::Kcmp::kFiles), fs = tasks::find_shared(tree, kernel::Kcmp::kFs);
  // What else may be wrong with the tree is somebody else's to say.
  if (auto shared = tasks::check_sharing(tree, files, fs, options.shell_job);
      !shared && shared.error().code() == Code::kUnsupported)
    obstacles.push_back(std::move(shared).error());
}

// Nobody can read them. We have none ourselves: a task that is told from us has a list, which may be empty, as that of
// every process with threads is at first.
Result<void> check_semaphores(const std::vector<tasks::Process>& tree, unsigned long owned,
                              std::vector<Error>& obstacles) {
  if (!(owned & CLONE_NEWIPC) || tree.empty()) return {};
  const auto root = tasks::open_pidfd(tree.front());
  if (!root || !TRY(namespaces::has_semaphores(root->get()))) return {};
  for (const auto& p : tree)
    if (!p.zombie && kernel::kcmp(::getpid(), p.pid, kernel::Kcmp::kSysvsem) > 0)
      obstacles.push_back(unsupported(
          p, "may have semaphore adjustments (SEM_UNDO), which nobody can read, and the container has semaphore sets"));
  return {};
}

namespace {

// A session gets its terminal back by a file that somebody has open of it; one that nobody has open would be lost.
void check_terminals(const procfs::Procfs& proc, const std::vector<tasks::Process>& tree,
                     std::vector<Error>& obstacles) {
  for (const auto& leader : tree) {
    if (leader.zombie || leader.stat.tty_nr == 0 || leader.npid != leader.nsid) continue;
    const bool open = std::ranges::any_of(tree, [&](const auto& p) {
      auto pidfd = tasks::open_pidfd(p);
      const auto fds = pidfd ? files::read_fds(proc, p.pid, pidfd->get()) : std::unexpected(pidfd.error());
      return fds && std::ranges::any_of(*fds, [&](const auto& c) {
               return S_ISCHR(c.st.st_mode) &&
                      static_cast<uint32_t>(c.st.st_rdev) == static_cast<uint32_t>(leader.stat.tty_nr);
             });
    });
    if (!open)
      obstacles.push_back(unsupported(leader, "has a controlling terminal that no process of the container has open"));
  }
}

Result<std::vector<Error>> look_once(const Options& options) {
  std::vector<Error> obstacles;
  const auto proc = TRY(procfs::Procfs::open());
  // First of all: of somebody else's tasks nothing more can be seen, and nothing should.
  if (options.client) check_owner(proc, options.pid, *options.client, obstacles);
  if (!obstacles.empty()) return obstacles;
  auto tree = tasks::find_tree(proc, options.pid);
  if (!tree && tree.error().code() == Code::kTaskGone)
    return fail(Error(Code::kTaskGone, cat("there is no process ", options.pid)).about(cat("pid ", options.pid)));
  const auto processes = TRY(std::move(tree));
  const pid_t root = processes.front().pid;
  if (options.client)
    for (const auto& p : processes) check_owner(proc, p.pid, *options.client, obstacles);
  if (!obstacles.empty()) return obstacles;
  std::vector<pid_t> others;
  for (const auto& p : processes)
    if (!p.zombie && p.tgid != options.pid) others.push_back(p.pid);
  const auto owned = TRY(namespaces::look(proc, root, others, options, obstacles));
  // A user namespace that cannot be had would make every further look fail for reasons of its own.
  if ((owned.flags & CLONE_NEWUSER) && !obstacles.empty()) return obstacles;
  if (options.client) TRY(check_client_namespaces(owned.flags));

  files::DumpEnv env{.options = options, .proc = proc, .root_pid = root};
  if (owned.users) env.users = &*owned.users;
  std::optional<mounts::Table> table;
  if (owned.flags & CLONE_NEWNS) {
    table = TRY(mounts::Table::read(proc.fd(), cat(root)));
    env.mounts = &*table;
    for (auto& e : mounts::check(*table, options, TRY(mounts::Table::read(proc.fd(), "self")),
                                 static_cast<uint32_t>(owned.flags), env.users))
      obstacles.push_back(std::move(e));
  }
  env.root_dir = TRY(proc.open_file(root, "root", O_PATH | O_DIRECTORY));
  for (const auto& p : processes) env.pids.emplace(p.tgid, p.npid);
  if (!options.shell_job) check_terminals(proc, processes, obstacles);
  if (options.cgroup_mode != CgroupMode::kIgnore) find_device_filter_obstacles(root, options.cgroup_yard, obstacles);
  check_sharing(processes, options, obstacles);
  memory::OutsideCheck outside;
  const auto map_context = TRY(memory::map_context(proc, (owned.flags & CLONE_NEWIPC) != 0));
  for (const auto& p : processes) {
    const size_t before = obstacles.size();
    check_tracer(proc, p, obstacles);
    check_process(proc, p, processes, options, obstacles);
    if (p.zombie) continue;
    auto pidfd = tasks::open_pidfd(p);
    if (!pidfd && pidfd.error().code() == Code::kUnsupported) obstacles.push_back(pidfd.error());
    if (!pidfd) continue;  // ended meanwhile
    files::find_obstacles(env, p.pid, pidfd->get(), obstacles);
    if (const auto maps = proc.smaps(p.pid))
      for (const auto& vma : memory::classify(map_context, *maps, p.pid, obstacles)) {
        outside.add(p.pid, vma);
        if (vma.file_backed && !(vma.entry.status() & memory::kVmaMemfd) && vma.map.name.ends_with(" (deleted)"))
          files::find_mapped_obstacles(env, p.pid, vma.map.start, vma.map.end, obstacles);
      }
    if (p.tgid == options.pid) namespaces::find_obstacles(proc, p.pid, pidfd->get(), owned, options, obstacles);
    // What a process that ended during the look gave is no obstacle.
    if (kernel::pidfd_wait_exit(pidfd->get(), 0))
      obstacles.erase(obstacles.begin() + static_cast<long>(before), obstacles.end());
  }
  TRY(check_semaphores(processes, owned.flags, obstacles));
  std::set<pid_t> pids;
  for (const auto& p : processes) pids.insert(p.tgid);
  outside.look(proc, pids, obstacles);
  return obstacles;
}

// A tree with the engine in it would stop for good the moment it is frozen.
Result<void> check_not_around_us(pid_t root) {
  const auto proc = TRY(procfs::Procfs::open());
  for (pid_t pid = ::getpid(); pid > 0; pid = TRY(proc.stat(pid)).ppid)
    if (pid == root) return fail(Code::kBadOption, cat("the engine cannot dump itself, and it runs below pid ", root));
  return {};
}

}  // namespace

Result<std::vector<Error>> find_obstacles(const Options& options) {
  // Around a client's engine there is the service, which is not the client's: that is said by name.
  if (!options.client) TRY(check_not_around_us(options.pid));
  auto obstacles = TRY(look_once(options));
  // Running tasks rename files and open and close them under our eyes: what is only there for
  // a moment is no obstacle. After the freeze everything is looked at again anyway.
  for (int round = 0; round < 2 && !obstacles.empty(); ++round) {
    const timespec nap{0, 10'000'000};
    ::nanosleep(&nap, nullptr);
    const auto again = TRY(look_once(options));
    std::erase_if(obstacles, [&](const Error& e) {
      return std::none_of(again.begin(), again.end(),
                          [&](const Error& a) { return a.code() == e.code() && a.object() == e.object(); });
    });
  }
  return obstacles;
}

}  // namespace stasis
