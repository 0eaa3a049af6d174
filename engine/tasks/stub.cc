// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/stub.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "engine/base/io.h"
#include "engine/kernel/ptrace.h"
#include "engine/kernel/syscalls.h"
#include "engine/kernel/x86_64/ia32.h"
#include "engine/kernel/x86_64/runner.h"
#include "engine/memory/premap.h"
#include "engine/namespaces/namespaces.h"
#include "engine/namespaces/user.h"
#include "engine/tasks/pid_taken.h"

namespace stasis::tasks {
namespace {

void put_error(SharedArena::Slot& slot, const Error& e) {
  slot.code = static_cast<int>(e.code());
  slot.error_number = e.sys_errno();
  e.message().copy(slot.text, sizeof(slot.text) - 1);
  e.object().copy(slot.object, sizeof(slot.object) - 1);
  slot.failed = 1;
}

// One stub. Nothing here returns into the engine's frames.
class Stub {
 public:
  Stub(StubEnv& env, int go_fd, int report_fd, int proc_fd)
      : env_(env), go_(go_fd), report_(report_fd), proc_(proc_fd) {}

  [[noreturn]] void run_root() {
    node_ = 0;
    block_signals();
    wait_go();
    must(enter_cgroups());
    report();
    wait_go();
    must(raise_descriptor_limit());
    must(reserve_pool());
    must(env_.set_up_namespaces());
    report();
    wait_go();
    must(move_own_descriptors());
    must(fill_pool());
    run_node();
  }

  // A child of the engine in the root's pid namespace: it joins the other namespaces of the
  // root and takes the root's pool.
  [[noreturn]] void run_extra(int node, int root_pidfd) {
    node_ = node;
    block_signals();
    must(raise_descriptor_limit());
    must(move_own_descriptors());
    if (const auto set = cgroup_set(task()); env_.ground && set) must(env_.ground->enter(*set, 0));
    const auto join =
        static_cast<int>((env_.snapshot.namespaces | env_.joined) & ~static_cast<unsigned long>(CLONE_NEWPID));
    for (int fd = env_.pool.base; fd < env_.pool.end; ++fd) {
      auto copy = kernel::pidfd_getfd(root_pidfd, fd);
      if (!copy && copy.error().sys_errno() == EBADF) continue;  // a terminal of another session, or none
      if (!copy || ::dup3(copy->get(), fd, O_CLOEXEC) < 0)
        must(fail_sys("take descriptor from the root task", cat(fd)));
    }
    if (join) must(kernel::setns(root_pidfd, join, "namespaces of the root task"));
    if (env_.snapshot.users) must(namespaces::become_root(*env_.snapshot.users));
    run_node();
  }

 private:
  static void block_signals() {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);
  }

  void wait_go() {
    char byte;
    ssize_t n;
    do n = ::read(go_, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n != 1) ::_exit(1);  // the engine is gone
  }

  void report() const {
    const char byte = '.';
    if (::write(report_, &byte, 1) != 1) ::_exit(1);
  }

  void must(Result<void> result) const {
    if (result) return;
    put_error(env_.shared.slot(static_cast<size_t>(node_)), result.error());
    report();
    ::_exit(1);
  }

  const TreeNode& node() const { return env_.plan.nodes[static_cast<size_t>(node_)]; }
  const TaskImage* task() const {
    return node().task < 0 ? nullptr : &env_.snapshot.tasks[static_cast<size_t>(node().task)];
  }

  static std::optional<uint32_t> cgroup_set(const TaskImage* task) {
    if (!task || task->zombie || !task->tc().has_cg_set()) return std::nullopt;
    return task->tc().cg_set();
  }

  Result<void> enter_cgroups() {
    if (env_.adopted) return {};
    const auto set = cgroup_set(task());
    if (!env_.ground || !set) {
      return env_.snapshot.namespaces & CLONE_NEWCGROUP ? kernel::unshare(CLONE_NEWCGROUP) : Result<void>();
    }
    if (!(env_.snapshot.namespaces & CLONE_NEWCGROUP)) return env_.ground->enter(*set, 0);
    TRY(env_.ground->enter_prefix(*set, 0));
    TRY(kernel::unshare(CLONE_NEWCGROUP));
    return env_.ground->enter_below_prefix(*set, 0);
  }

  // The root holds every file of the images at once, more than any task may: above the hard limit that takes
  // CAP_SYS_RESOURCE.
  Result<void> raise_descriptor_limit() const {
    const auto need = static_cast<rlim_t>(env_.pool.end) + 64;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return fail_sys("getrlimit(RLIMIT_NOFILE)");
    const rlim_t most = limit.rlim_max;
    limit.rlim_cur = limit.rlim_max = std::max(most, need);
    if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) return {};
    if (most < need)
      return fail(Code::kRestoreFailed, cat("the images hold ", env_.pool.file.size(), " open files, which takes ",
                                            need, " descriptors; the limit here (RLIMIT_NOFILE) is ", most));
    return fail_sys("setrlimit(RLIMIT_NOFILE)");
  }

  // Low numbers belong to the task: what the stub itself needs goes up.
  Result<void> move_own_descriptors() {
    for (int* fd : {&go_, &report_, &proc_}) {
      Fd copy = TRY(dup_at_least(*fd, env_.pool.end));
      *fd = copy.release();
    }
    if (log::fd() >= 0) {
      Fd copy = TRY(dup_at_least(log::fd(), env_.pool.end));
      const auto level = log::level();
      log::open(copy.release(), level);
    }
    log::also_to(-1);
    return {};
  }

  // Nothing that is opened from here on gets a number of the pool, which is to be put there with dup3().
  Result<void> reserve_pool() {
    for (int number = env_.pool.base; number < env_.pool.end; ++number) {
      if (::fcntl(number, F_GETFD) >= 0) return fail(Code::kInternal, cat("descriptor ", number, " is taken"));
      if (::dup3(go_, number, O_CLOEXEC) < 0) {
        if (errno != EBADF) return fail_sys("dup3", cat("descriptor ", number));
        return fail(Code::kRlimit, cat("the restore needs descriptors up to ", env_.pool.end,
                                       ", above those of the images, which the hard limit of open files forbids"));
      }
      reserved_.insert(number);
    }
    return {};
  }

  Result<void> put_in_pool(int fd, int number, const std::string& what) {
    if (::dup3(fd, number, O_CLOEXEC) < 0) return fail_sys("dup3", what);
    reserved_.erase(number);
    return {};
  }

  Result<void> fill_pool() {
    TRY(put_in_pool(proc_, env_.pool.proc, "/proc"));
    for (const auto& [id, number] : env_.pool.pages) {
      const std::string name = cat("pages-", id, ".img");
      TRY(put_in_pool(TRY(env_.snapshot.images->open_raw(name)).get(), number, name));
    }
    TRY(fill_shared());
    if (node().leads_session && ::setsid() < 0 && errno != EPERM) return fail_sys("setsid");
    const auto small = small_files();
    for (const auto& [id, file] : env_.snapshot.files) {
      if (is_current_terminal(file) && !is_of_shell(id)) continue;
      const Fd fd = TRY(small.contains(id) ? open_small(file) : env_.open_file(file));
      TRY(put_in_pool(fd.get(), env_.pool.file.at(id), cat("file ", id)));
    }
    int next = env_.pool.masters;
    for (int fd : env_.spare_masters ? env_.spare_masters() : std::vector<int>()) {
      if (next == env_.pool.masters + env_.pool.max_masters) return fail(Code::kInternal, "too many terminals");
      TRY(put_in_pool(fd, next++, "master of a terminal"));
    }
    for (int number : std::exchange(reserved_, {})) ::close(number);
    if (env_.connect_files) TRY(env_.connect_files());
    return {};
  }

  // What 32-bit code has opened without O_LARGEFILE ends for it at 2 GiB.
  std::set<uint32_t> small_files() const {
    constexpr uint32_t kLarge = 0100000;
    std::set<uint32_t> out;
    for (const auto& t : env_.snapshot.tasks)
      for (const auto& e : t.fds) {
        const auto& file = env_.snapshot.files.at(e.id());
        if (t.ia32 && file.has_reg() && !(file.reg().flags() & (kLarge | O_PATH))) out.insert(e.id());
      }
    return out;
  }

  // Opened, and opened again through that: the kernel sets O_LARGEFILE for all but 32-bit code.
  Result<Fd> open_small(const pb::file_entry& file) const {
    Fd fd = TRY(env_.open_file(file));
    struct stat st {};
    if (::fstat(fd.get(), &st) < 0) return fail_sys("fstat", cat("file ", file.id()));
    // Another kind has no length, and might mind.
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) return fd;
    const int flags = static_cast<int>(file.reg().flags()) & ~(O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW | __O_TMPFILE);
    auto small = kernel::open_as_ia32(proc_, cat("self/fd/", fd.get()), flags);
    if (!small) {
      log::warning("file ", file.id(), " of a 32-bit task: ", small.error().message(),
                   "; it may grow beyond 2 GiB now, ignoring");
      return fd;
    }
    if (::lseek(small->get(), ::lseek(fd.get(), 0, SEEK_CUR), SEEK_SET) < 0 && file.reg().pos() != 0)
      return fail_sys("lseek", cat("file ", file.id()));
    return small;
  }

  Result<void> fill_shared() {
    for (const auto& [id, number] : env_.pool.shared) {
      const auto& object = env_.snapshot.shared.at(id);
      const auto given = env_.shared_objects.find(id);
      const Fd fd = TRY(given == env_.shared_objects.end() ? memory::make_shared(object, proc_)
                                                           : dup_at_least(given->second.get()));
      TRY(memory::fill_shared(*env_.snapshot.images, object.pagemap, fd.get(), object.size));
      TRY(put_in_pool(fd.get(), number, cat("shared memory ", id)));
    }
    return {};
  }

  bool is_current_terminal(const pb::file_entry& file) const {
    const auto info = file.has_tty() ? env_.snapshot.ttys.find(file.tty().tty_info_id()) : env_.snapshot.ttys.end();
    return info != env_.snapshot.ttys.end() && info->second.type() == pb::CTTY;
  }

  // Of a job of the session that the engine is in.
  bool is_of_shell(uint32_t id) const {
    if (!env_.options.shell_job || node().leads_session) return false;
    auto inside = [&](uint32_t sid) {
      return std::ranges::any_of(env_.snapshot.tasks, [&](const auto& t) { return t.node.pid() == sid; });
    };
    for (const auto& t : env_.snapshot.tasks)
      for (const auto& e : t.fds)
        if (e.id() == id && inside(t.node.sid())) return false;
    return true;
  }

  // /dev/tty can be opened only by a session that has a terminal: its leader does it, for all that come after it.
  Result<void> open_current_terminal() {
    for (const auto& t : env_.snapshot.tasks) {
      if (t.zombie || t.node.sid() != node().pid) continue;
      for (const auto& e : t.fds) {
        const auto& file = env_.snapshot.files.at(e.id());
        const int number = TRY(pool_fd(e.id()));
        if (!is_current_terminal(file) || ::fcntl(number, F_GETFD) >= 0) continue;
        const Fd fd = TRY(env_.open_file(file));
        if (::dup3(fd.get(), number, O_CLOEXEC) < 0) return fail_sys("dup3", cat("file ", e.id()));
      }
    }
    return {};
  }

  [[noreturn]] void run_node() {
    must(say_pid());
    if (const auto* t = task(); t && env_.premaps)
      must(memory::premap(*t, env_.premaps->at(static_cast<size_t>(node().task)), env_.pool.file, env_.pool.pages,
                          held_));
    must(create_children(true));
    if (node().leads_session) {
      if (::setsid() < 0 && errno != EPERM) must(fail_sys("setsid", cat("pid ", node().pid)));
      must(take_terminal());
      must(open_current_terminal());
    }
    if (node().adopts && ::prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) must(fail_sys("prctl(PR_SET_CHILD_SUBREAPER)"));
    must(create_children(false));
    if (const auto* t = task(); t && !t->zombie) must(set_up(*t));
    report();
    while (true) ::pause();
  }

  // Our number in the engine's pid namespace, by its /proc.
  Result<void> say_pid() {
    const std::string self = TRY(read_link_at(proc_, "self"));
    const auto pid = parse_int<int>(self);
    if (!pid) return fail(Code::kInternal, cat("/proc/self is ", self));
    env_.shared.slot(static_cast<size_t>(node_)).host_pid = *pid;
    return {};
  }

  Result<void> create_children(bool early) {
    for (int child : node().children)
      if (env_.plan.nodes[static_cast<size_t>(child)].early == early) TRY(create_child(child));
    return {};
  }

  uint64_t exit_signal(int node) const {
    const int task = env_.plan.nodes[static_cast<size_t>(node)].task;
    const auto* extra = task < 0 || env_.snapshot.tasks[static_cast<size_t>(task)].extras.empty()
                            ? nullptr
                            : env_.snapshot.tasks[static_cast<size_t>(task)].extras.front();
    return extra && extra->has_exit_signal() && extra->exit_signal() <= 64 ? extra->exit_signal() : SIGCHLD;
  }

  // Takes CAP_AUDIT_CONTROL where one is set already; only a task itself may do it.
  Result<void> set_login(const TaskImage& t) {
    const auto now = read_file_at(proc_, "self/loginuid");
    const uint32_t wanted = t.tc().has_loginuid() ? t.tc().loginuid() : ~0u;
    if (!now || parse_int<uint32_t>(trim(*now)) == wanted) return {};
    if (auto r = write_file_at(proc_, "self/loginuid", cat(wanted)); !r)
      log::warning("pid ", t.node.pid(), ": loginuid cannot be set to ", wanted, ": ", r.error().message(),
                   ", ignoring");
    return {};
  }

  Result<void> create_child(int child) {
    const auto pid = static_cast<pid_t>(env_.plan.nodes[static_cast<size_t>(child)].pid);
    kernel::CloneArgs args{};
    args.exit_signal = exit_signal(child);
    args.set_tid = reinterpret_cast<uint64_t>(&pid);
    args.set_tid_size = 1;
    const auto& born = env_.plan.nodes[static_cast<size_t>(child)];
    args.flags = (born.shares_files ? CLONE_FILES : 0) | (born.shares_fs ? CLONE_FS : 0);
    const pid_t got = kernel::clone3(args);
    if (got < 0) {
      if (errno == EEXIST) return fail(pid_taken(env_.snapshot.namespaces & CLONE_NEWPID ? -1 : proc_, pid));
      return fail_sys("clone3 with pid", cat(pid));
    }
    if (got > 0) return {};
    // Below a pid namespace's init the kernel cleans up; elsewhere this does.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const auto from = cgroup_set(task());
    node_ = child;
    const auto set = cgroup_set(task());
    if (env_.ground && set && from != set)
      must(from ? env_.ground->enter_from(*from, *set, 0) : env_.ground->enter(*set, 0));
    run_node();
  }

  Result<int> pool_fd(uint32_t id) const {
    const auto at = env_.pool.file.find(id);
    if (at == env_.pool.file.end()) return fail(Code::kInternal, cat("file ", id, " was not opened"));
    return at->second;
  }

  Result<void> set_up(const TaskImage& t) {
    TRY(set_login(t));
    if (!node().shares_files) {
      wait_for_sharers(&TreeNode::shares_files);
      TRY(place_files(t));
    }
    if (!node().shares_fs) {
      wait_for_sharers(&TreeNode::shares_fs);
      TRY(place_in_tree(t));
    }
    settle();
    return {};
  }

  // Those below us that share ours may open files of their own for a moment, and look for paths, until they are
  // settled.
  void wait_for_sharers(bool TreeNode::*share) const {
    auto wait = [&](auto& self, const TreeNode& of) -> void {
      for (int child : of.children) {
        const auto& below = env_.plan.nodes[static_cast<size_t>(child)];
        if (!(below.*share)) continue;
        auto& settled = env_.shared.slot(static_cast<size_t>(child)).settled;
        while (__atomic_load_n(&settled, __ATOMIC_ACQUIRE) == 0) kernel::futex_wait(settled, 0);
        self(self, below);
      }
    };
    wait(wait, node());
  }

  void settle() const {
    auto& settled = env_.shared.slot(static_cast<size_t>(node_)).settled;
    __atomic_store_n(&settled, 1, __ATOMIC_RELEASE);
    kernel::futex_wake(settled);
  }

  Result<void> place_files(const TaskImage& t) {
    // Every number below the pool is the task's own.
    std::set<int> used;
    for (const auto& e : t.fds) {
      const int fd = static_cast<int>(e.fd());
      if (::dup3(TRY(pool_fd(e.id())), fd, e.flags() & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
        return fail_sys("dup3", cat("pid ", node().pid, " fd ", fd));
      used.insert(fd);
    }
    int from = 0;
    for (int fd : used) {
      if (fd > from) close_range(static_cast<unsigned>(from), static_cast<unsigned>(fd - 1), 0);
      from = fd + 1;
    }
    if (from < env_.pool.base) close_range(static_cast<unsigned>(from), static_cast<unsigned>(env_.pool.base - 1), 0);
    return env_.files_in_task ? env_.files_in_task(t) : Result<void>();
  }

  Result<void> place_in_tree(const TaskImage& t) {
    const auto root = env_.snapshot.files.at(t.fs.root_id()).reg().name();
    if (root != "/" && !root.empty()) {
      if (::fchdir(TRY(pool_fd(t.fs.root_id()))) < 0 || ::chroot(".") < 0) return fail_sys("chroot", root);
    }
    if (::fchdir(TRY(pool_fd(t.fs.cwd_id()))) < 0) return fail_sys("fchdir", cat("cwd of pid ", node().pid));
    ::umask(t.fs.has_umask() ? t.fs.umask() : 022);
    return {};
  }

  // The session leader of a terminal gets it back as its controlling terminal, whoever has it open.
  Result<void> take_terminal() {
    for (const auto& [id, file] : env_.snapshot.files) {
      if (!file.has_tty()) continue;
      const auto info = env_.snapshot.ttys.find(file.tty().tty_info_id());
      if (info == env_.snapshot.ttys.end() || info->second.sid() != node().pid) continue;
      if (::ioctl(TRY(pool_fd(id)), TIOCSCTTY, 0) < 0) return fail_sys("ioctl(TIOCSCTTY)", cat("pid ", node().pid));
      return {};
    }
    return {};
  }

  StubEnv& env_;
  int go_, report_, proc_;
  int node_ = 0;
  memory::Runs held_;       // mappings of this and of restored parents, which children inherit
  std::set<int> reserved_;  // numbers of the pool that hold nothing yet
};

}  // namespace

void become_root_stub(StubEnv& env, int go, int report, int proc) { Stub(env, go, report, proc).run_root(); }

void fail_root_stub(const SharedArena& shared, const Error& error, int report) {
  put_error(shared.slot(0), error);
  const char byte = '.';
  (void)!::write(report, &byte, 1);
  ::_exit(1);
}

Result<Stubs> Stubs::adopt(StubEnv& env, pid_t pid, Fd pidfd, Fd go, Fd report) {
  Stubs stubs(env);
  stubs.go_ = std::move(go);
  stubs.report_ = std::move(report);
  TRY(kernel::seize(pid, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP));
  stubs.root_ = pid;
  stubs.root_pidfd_ = std::move(pidfd);
  return stubs;
}

Result<Stubs> Stubs::create(StubEnv& env, unsigned long namespaces) {
  Stubs stubs(env);
  int go[2], report[2];
  if (::pipe2(go, O_CLOEXEC) < 0) return fail_sys("pipe2");
  stubs.go_read_ = Fd(go[0]), stubs.go_ = Fd(go[1]);
  if (::pipe2(report, O_CLOEXEC) < 0) return fail_sys("pipe2");
  stubs.report_ = Fd(report[0]), stubs.report_write_ = Fd(report[1]);
  Fd proc = TRY(open_at(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY));

  const auto pid = static_cast<pid_t>(env.plan.nodes.front().pid);
  int pidfd = -1;
  kernel::CloneArgs args{};
  // Cgroup namespaces begin where the task stands: unshared later, when it stands right. Time namespaces are set up
  // before anybody is in them.
  args.flags = (namespaces & ~static_cast<unsigned long>(CLONE_NEWCGROUP | CLONE_NEWTIME)) | CLONE_PIDFD;
  args.pidfd = reinterpret_cast<uint64_t>(&pidfd);
  args.set_tid = reinterpret_cast<uint64_t>(&pid);
  args.set_tid_size = 1;
  if (env.options.parent == RestoreParent::kSibling)
    args.flags |= CLONE_PARENT;  // the exit signal is then that of the engine itself
  else
    args.exit_signal = SIGCHLD;
  const pid_t got = [&] {
    auto owner = namespaces::AsOwner::take(env.snapshot.users);
    const pid_t made = owner ? kernel::clone3(args) : -1;
    if (made == 0) owner->forget();
    return made;
  }();
  if (got < 0) {
    if (errno == EEXIST) return fail(pid_taken(proc.get(), pid));
    return fail_sys("clone3 with pid", cat(pid));
  }
  if (got == 0) {
    stubs.go_.reset();
    stubs.report_.reset();
    Stub stub(env, stubs.go_read_.get(), stubs.report_write_.get(), proc.get());
    stub.run_root();
  }
  stubs.root_ = got;
  stubs.root_pidfd_ = Fd(pidfd);
  stubs.go_read_.reset();
  // From here on the root dies with us, and with it, in a pid namespace, everything else.
  TRY(kernel::seize(got, stubs.seize_flags()));
  if (env.snapshot.users) TRY(namespaces::write_maps(TRY(procfs::Procfs::open()), got, *env.snapshot.users));
  return stubs;
}

unsigned long Stubs::seize_flags() const {
  // Suspending filters needs CAP_SYS_ADMIN; a client's tasks have none.
  return PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | (env_->options.client ? 0 : PTRACE_O_SUSPEND_SECCOMP);
}

Error Stubs::stub_error() const {
  for (size_t i = 0; i < env_->plan.nodes.size(); ++i) {
    const auto& slot = env_->shared.slot(i);
    if (!slot.failed) continue;
    return Error(static_cast<Code>(slot.code), slot.text).about(slot.object).with_errno(slot.error_number);
  }
  return Error(Code::kRestoreFailed, "a task died while it was being set up");
}

Result<void> Stubs::wait_bytes(size_t count) {
  while (count > 0) {
    pollfd items[] = {{report_.get(), POLLIN, 0}, {root_pidfd_.get(), POLLIN, 0}};
    if (::poll(items, 2, 100) < 0 && errno != EINTR) return fail_sys("poll");
    if (items[0].revents & POLLIN) {
      char bytes[256];
      const ssize_t n = ::read(report_.get(), bytes, std::min(count, sizeof(bytes)));
      if (n <= 0) return fail(stub_error());
      count -= static_cast<size_t>(n);
      for (size_t i = 0; i < env_->plan.nodes.size(); ++i)
        if (env_->shared.slot(i).failed) return fail(stub_error());
      continue;
    }
    if (items[1].revents) return fail(stub_error());
  }
  return {};
}

Result<void> Stubs::next_stage() {
  const char byte = 'g';
  if (::write(go_.get(), &byte, 1) != 1) return fail(stub_error());
  ++stage_;
  size_t below_root = env_->plan.nodes.size();
  if (stage_ == 3) {
    // Extra roots and what is below them come later.
    std::vector<bool> extra(below_root, false);
    for (int i : env_->plan.extra_roots) extra[static_cast<size_t>(i)] = true;
    size_t count = 0;
    for (size_t i = 0; i < extra.size(); ++i) {
      const int creator = env_->plan.nodes[i].creator;
      if (creator >= 0 && extra[static_cast<size_t>(creator)]) extra[i] = true;
      count += !extra[i];
    }
    return wait_bytes(count);
  }
  return wait_bytes(1);
}

Result<std::vector<Fd>> Stubs::spare_masters() const {
  std::vector<Fd> masters;
  const auto& pool = env_->pool;
  for (int fd = pool.masters; fd < pool.masters + pool.max_masters; ++fd) {
    auto master = kernel::pidfd_getfd(root_pidfd_.get(), fd);
    if (!master && master.error().sys_errno() == EBADF) break;
    masters.push_back(TRY(std::move(master)));
  }
  return masters;
}

Result<void> Stubs::create_extra_roots() {
  if (env_->plan.extra_roots.empty()) return {};
  Fd proc = TRY(open_at(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY));
  auto inside = TRY(namespaces::Inside::enter(root_pidfd_.get(), CLONE_NEWPID));
  size_t before = 0;
  for (size_t i = 0; i < env_->plan.nodes.size(); ++i) before += host_pid(i) > 0;
  for (int node : env_->plan.extra_roots) {
    const auto pid = static_cast<pid_t>(env_->plan.nodes[static_cast<size_t>(node)].pid);
    kernel::CloneArgs args{};
    args.set_tid = reinterpret_cast<uint64_t>(&pid);
    args.set_tid_size = 1;
    if (env_->options.parent == RestoreParent::kSibling)
      args.flags = CLONE_PARENT;
    else
      args.exit_signal = SIGCHLD;
    const pid_t got = kernel::clone3(args);
    if (got < 0) return fail_sys("clone3 with pid", cat(pid));
    if (got == 0) Stub(*env_, go_.get(), report_write_.get(), proc.get()).run_extra(node, root_pidfd_.get());
    env_->shared.slot(static_cast<size_t>(node)).host_pid = got;  // so that a failure kills it
  }
  return wait_bytes(env_->plan.nodes.size() - before);
}

Result<void> Stubs::seize_all() {
  constexpr uint64_t kAllButTrap = ~(uint64_t{1} << (SIGTRAP - 1));
  for (size_t i = 0; i < env_->plan.nodes.size(); ++i) {
    const pid_t pid = host_pid(i);
    if (pid <= 0) return fail(Code::kInternal, cat("stub ", i, " has not said its pid"));
    if (pid != root_) TRY(kernel::seize(pid, seize_flags()));
    TRY(kernel::interrupt(pid));
    while (true) {
      const auto stop = TRY(kernel::wait_stop(pid));
      if (stop.kind == kernel::Stop::Kind::kExited) return fail(stub_error());
      if (stop.event_stop()) break;
      TRY(kernel::cont(pid));
    }
    TRY(kernel::set_sigmask(pid, kAllButTrap));
  }
  return {};
}

Stubs::Stubs(Stubs&& other) noexcept
    : env_(other.env_),
      root_(std::exchange(other.root_, 0)),  // or the source would kill it
      root_pidfd_(std::move(other.root_pidfd_)),
      go_(std::move(other.go_)),
      report_(std::move(other.report_)),
      go_read_(std::move(other.go_read_)),
      report_write_(std::move(other.report_write_)),
      stage_(other.stage_) {}

Stubs::~Stubs() {
  if (committed_ || root_ <= 0) return;
  std::vector<pid_t> pids;
  for (size_t i = 0; i < env_->plan.nodes.size(); ++i) {
    const pid_t pid = i == 0 ? root_ : host_pid(i);
    if (pid > 0 && !forgotten_.contains(i)) pids.push_back(pid);
  }
  // Threads that were created meanwhile are traced by us too.
  std::vector<pid_t> tids;
  if (auto proc = procfs::Procfs::open())
    for (pid_t pid : pids)
      if (auto threads = proc->threads(pid)) tids.insert(tids.end(), threads->begin(), threads->end());
  for (pid_t pid : pids) ::kill(pid, SIGKILL);
  kernel::reap(std::move(tids), 5000);
  kernel::pidfd_wait_exit(root_pidfd_.get(), 5000);
}

}  // namespace stasis::tasks
