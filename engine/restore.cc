// SPDX-License-Identifier: Apache-2.0
// The restore line: open, check, plan, ground, tree, shared objects, private state, memory,
// final, release. Until release everything is a scope: a failure kills the new tree and
// removes what was made for it.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "cgroups/ground.h"
#include "cgroups/plan.h"
#include "cgroups/root_option.h"
#include "engine/base/interrupt.h"
#include "engine/base/io.h"
#include "engine/client_check.h"
#include "engine/device_filters.h"
#include "engine/engine.h"
#include "engine/files/external_file.h"
#include "engine/files/net_lock.h"
#include "engine/files/tcp_release.h"
#include "engine/into.h"
#include "engine/janitor.h"
#include "engine/kernel/ptrace.h"
#include "engine/kernel/syscalls.h"
#include "engine/memory/keys.h"
#include "engine/memory/restore_memory.h"
#include "engine/memory/vma.h"
#include "engine/namespaces/namespaces.h"
#include "engine/namespaces/net.h"
#include "engine/namespaces/time.h"
#include "engine/namespaces/user.h"
#include "engine/tasks/labels.h"
#include "engine/tasks/restore_core.h"
#include "engine/tasks/sleeps.h"
#include "engine/tasks/snapshot.h"
#include "engine/tasks/stub.h"
#include "engine/tasks/tree_plan.h"
#include "engine/tty_keeper.h"
#include "mounts/apply.h"
#include "mounts/dump.h"
#include "mounts/plan.h"
#include "mounts/sources.h"
#include "proto/net.pb.h"

namespace stasis {
namespace {

timespec now() {
  timespec ts{};
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts;
}

uint32_t us_since(const timespec& start) {
  const timespec end = now();
  return static_cast<uint32_t>((end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000);
}

// What restore will do, decided without touching anything.
struct Plan {
  tasks::TreePlan tree;
  mounts::RestorePlan mounts;
  cgroups::RestorePlan cgroups;
  namespaces::NetPlan net;
  tasks::Pool pool;
  std::vector<memory::Premap> premaps;  // by task
  memory::Runs taken;                   // by the stubs themselves
  std::vector<memory::VdsoPlan> vdsos;
  uint64_t hole = 0;
  unsigned long new_namespaces = 0;       // for clone3
  std::vector<std::pair<int, int>> join;  // namespace descriptor, CLONE_NEW*
  std::optional<namespaces::NewTime> time;
};

// External and joined namespaces come as descriptors of the caller or as paths.
Result<void> plan_namespaces(const procfs::Procfs& proc, const tasks::Snapshot& s, const Options& options,
                             std::vector<Fd>& keep, Plan& plan) {
  plan.new_namespaces = s.namespaces;
  const auto& ids = s.tasks.front().ids;
  if (s.namespaces & CLONE_NEWNET) {
    const std::string name = cat("netns-", ids.net_ns_id(), ".img");
    if (s.images->exists(name)) {
      const auto entry = TRY(s.images->read<pb::netns_entry>(image::Kind::kNetns, name));
      if (entry.has_ext_key() && !entry.ext_key().empty()) {
        const int fd = files::inherited_fd(options, entry.ext_key());
        if (fd < 0)
          return fail(Error(Code::kBadOption,
                            cat("the network namespace \"", entry.ext_key(),
                                "\" of the images is external; give it with --inherit-fd fd[N]:", entry.ext_key()))
                          .about(entry.ext_key()));
        plan.join.emplace_back(fd, CLONE_NEWNET);
        plan.new_namespaces &= ~static_cast<unsigned long>(CLONE_NEWNET);
      }
    }
  }
  for (const auto& join : options.join_ns) {
    const auto kind = std::find_if(namespaces::all_kinds().begin(), namespaces::all_kinds().end(),
                                   [&](const auto& k) { return k.name == join.ns; });
    if (kind == namespaces::all_kinds().end() || kind->flag == CLONE_NEWPID || kind->flag == CLONE_NEWUSER ||
        kind->flag == CLONE_NEWNS)
      return fail(
          Error(Code::kUnsupportedNamespace, cat("--join-ns ", join.ns, " is not supported yet")).about(join.ns));
    const auto pid = parse_int<pid_t>(join.file);
    Fd fd = TRY(pid ? proc.open_file(*pid, cat("ns/", join.ns), O_RDONLY) : open_at(AT_FDCWD, join.file, O_RDONLY));
    plan.join.emplace_back(fd.get(), static_cast<int>(kind->flag));
    plan.new_namespaces &= ~kind->flag;
    keep.push_back(std::move(fd));
  }
  return {};
}

// A time namespace of the container's own goes on from the dump. The host's time is that of another boot if it is
// behind that of the dump: then a namespace keeps the clocks from going backwards, as long as that is a container's.
void plan_time(const procfs::Procfs& proc, const tasks::Snapshot& s, const Options& options, Plan& plan) {
  const bool joined = std::ranges::any_of(plan.join, [](const auto& j) { return j.second == CLONE_NEWTIME; });
  if (joined || !s.clocks) return;
  if (s.namespaces & CLONE_NEWTIME) {
    plan.time = {s.clocks->monotonic, s.clocks->boottime};
    return;
  }
  const auto behind = namespaces::clocks_behind(*s.clocks);
  if (!behind) return;
  if (!(s.namespaces & CLONE_NEWPID) || options.into.pid != 0 || !proc.ns(::getpid(), "time")) {
    log::warning(
        "the clocks of this host are behind those of the checkpoint: the tasks see them go backwards, ignoring");
    return;
  }
  log::warning("the clocks of this host are behind those of the checkpoint: the container gets a time namespace");
  plan.time = behind;
}

// Each terminal that is open, or bound somewhere, may need a master.
int count_terminals(const tasks::Snapshot& s, const mounts::RestorePlan& mounts) {
  return static_cast<int>(s.ttys.size()) + static_cast<int>(std::ranges::count_if(mounts.mounts, [&](const auto& m) {
           return m.staged >= 0 && mounts.staged[static_cast<size_t>(m.staged)].cls == mounts::FsClass::kInstance;
         }));
}

Result<tasks::Pool> plan_pool(const procfs::Procfs& proc, const tasks::Snapshot& s, int max_masters) {
  int top = 2;
  for (const auto& task : s.tasks)
    for (const auto& e : task.fds) top = std::max(top, static_cast<int>(e.fd()));
  for (int fd : TRY(proc.fds(::getpid()))) top = std::max(top, fd);
  // Room for what the engine is still to open; what the root stub opens keeps off the pool by itself.
  return tasks::make_pool(s, top + 128, max_masters);
}

bool has_ia32(const tasks::Snapshot& s) {
  return std::ranges::any_of(s.tasks, [](const auto& t) { return t.ia32; });
}

// `pids`: of the engine, and of another process that is to have the arena.
Result<uint64_t> plan_hole(const procfs::Procfs& proc, const tasks::Snapshot& s, size_t nodes,
                           std::initializer_list<pid_t> pids) {
  std::vector<std::pair<uint64_t, uint64_t>> taken;
  for (const auto& task : s.tasks)
    for (const auto& vma : task.mm.vmas())
      if (!(vma.status() & memory::kVmaVsyscall)) taken.emplace_back(vma.start(), vma.end());
  for (pid_t pid : pids) {
    if (pid == 0) continue;
    for (const auto& map : TRY(procfs::parse_smaps(TRY(proc.text(pid, "maps")))))
      if (map.end <= memory::kTaskSize) taken.emplace_back(map.start, map.end);
  }
  const auto hole = memory::find_hole(std::move(taken), tasks::SharedArena::size_for(nodes), has_ia32(s));
  if (!hole)
    return fail(Code::kUnsupportedMemory, cat("the tasks leave no free address range for the engine",
                                              has_ia32(s) ? " below 4 GiB, where 32-bit code needs it" : ""));
  return *hole;
}

Result<std::vector<memory::VdsoPlan>> plan_vdsos(const procfs::Procfs& proc, const tasks::Snapshot& s,
                                                 memory::Run arena) {
  const auto own = TRY(memory::own_vdso(proc));
  memory::OwnVdso ia32;
  std::vector<uint8_t> ia32_text;
  if (has_ia32(s)) ia32 = TRY(memory::ia32_vdso(proc, ia32_text));
  std::vector<memory::VdsoPlan> plans(s.tasks.size());
  bool redirected = false;
  for (size_t i = 0; i < s.tasks.size(); ++i) {
    if (s.tasks[i].zombie) continue;
    plans[i] = TRY(memory::plan_vdso(s, s.tasks[i], s.tasks[i].ia32 ? ia32 : own, arena));
    redirected |= plans[i].redirect;
  }
  if (redirected) log::info("restore: the vDSO of this kernel is another one, calls into the old one are redirected");
  return plans;
}

// Where a stub, a copy of ours, has mappings or may come to have some: its heap grows up, new ones come below the
// others.
Result<memory::Runs> stub_ranges(const procfs::Procfs& proc, pid_t pid) {
  constexpr uint64_t kRoom = 64u << 20;
  memory::Runs out;
  for (const auto& map : TRY(procfs::parse_smaps(TRY(proc.text(pid, "maps")))))
    if (map.end <= memory::kTaskSize)
      out = memory::unite(out, {{map.start - std::min(map.start, kRoom), map.end + kRoom}});
  return out;
}

Result<cgroups::RestorePlan> plan_cgroups(const tasks::Snapshot& s, const Options& options,
                                          const cgroups::Hierarchies& host) {
  cgroups::PlanInput input;
  input.roots = options.cgroup_roots;
  input.mode = options.cgroup_mode;
  input.hierarchies = host.list();
  input.own = TRY(cgroups::read_own_membership());
  input.device_programs = TRY(load_device_filters(s.images->manifest()));
  {
    // runc puts the engine into the container's new cgroup, crun and LXC do not.
    const auto client = cgroups::read_membership(::getppid());
    input.stay_with_engine = client && cgroups::moved_by_client(input.own, *client);
  }
  return cgroups::plan_restore(*s.cgroup, input);
}

Result<Plan> make_plan(const procfs::Procfs& proc, const tasks::Snapshot& s, const Options& options,
                       const cgroups::Hierarchies* host, std::vector<Fd>& keep) {
  Plan plan;
  plan.tree = TRY(tasks::plan_tree(s, options.shell_job));
  if (s.namespaces & CLONE_NEWNS) {
    plan.mounts = TRY(mounts::plan_restore(s.mounts, options));
  }
  const bool into = options.into.pid != 0;
  if (!into) TRY(plan_namespaces(proc, s, options, keep, plan));
  if (!into && !s.segments.empty() && !(plan.new_namespaces & CLONE_NEWIPC))
    return fail(Code::kUnsupportedNamespace,
                "the images hold System V shared memory, which is not put into a namespace that was there before");
  if (!into && s.posix_queues && !(plan.new_namespaces & CLONE_NEWIPC))
    return fail(Code::kUnsupportedNamespace,
                "the images hold POSIX message queues, which are not put into a namespace that was there before");
  plan_time(proc, s, options, plan);
  if (plan.new_namespaces & CLONE_NEWNET)
    plan.net = TRY(namespaces::plan_net(s.tasks.front().ids.net_ns_id(), *s.images, options));
  if (host) plan.cgroups = TRY(plan_cgroups(s, options, *host));
  TRY(files::check_external_ttys(s.ttys, options));
  TRY(files::check_external_files(s.files, options));
  TRY(files::check_external_unix(s.files, options));
  plan.pool = TRY(plan_pool(proc, s, into ? 0 : count_terminals(s, plan.mounts)));
  plan.hole = TRY(plan_hole(proc, s, plan.tree.nodes.size(), {::getpid(), options.into.pid}));
  plan.taken = TRY(stub_ranges(proc, into ? options.into.pid : ::getpid()));
  plan.premaps = into && !into::can_keep_off(plan.taken) ? std::vector<memory::Premap>(s.tasks.size())
                                                         : memory::plan_premap(s, plan.tree, plan.taken);
  TRY(memory::check_huge_pages(s));
  TRY(memory::check_keys_can_be_had(s));
  const memory::Run arena{plan.hole, plan.hole + tasks::SharedArena::size_for(plan.tree.nodes.size())};
  plan.vdsos = TRY(plan_vdsos(proc, s, arena));
  return plan;
}

// A stub dies with its parent until it is traced; from here on helpers may die alone.
Result<void> let_parents_die(std::vector<remote::Runner>& runners) {
  for (auto& runner : runners) {
    remote::Batch batch;
    batch.add(__NR_prctl, PR_SET_PDEATHSIG, 0);
    TRY(runner.run(batch));
  }
  return {};
}

// Process groups: leaders first, so that every group exists when others join it.
Result<void> restore_groups(const Plan& plan, std::vector<remote::Runner>& runners) {
  for (const bool leaders : {true, false}) {
    for (size_t i = 0; i < plan.tree.nodes.size(); ++i) {
      const auto& node = plan.tree.nodes[i];
      if ((node.pgid == node.pid) != leaders || node.pgid == 0 || node.sid == node.pid) continue;
      const bool known = std::any_of(plan.tree.nodes.begin(), plan.tree.nodes.end(),
                                     [&](const auto& n) { return n.pid == node.pgid; });
      if (!known) continue;  // a shell job stays in the engine's group
      remote::Batch batch;
      batch.add(__NR_setpgid, 0, node.pgid);
      batch.must(cat("setpgid(", node.pgid, ")"));
      TRY(runners[i].run_checked(batch));
    }
  }
  return {};
}

// The terminal's foreground group, told by the leader of its session; of a shell's job, by its root.
Result<void> restore_foreground(const tasks::Snapshot& s, const Plan& plan, const Options& options,
                                std::vector<remote::Runner>& runners) {
  for (const auto& [id, tty] : s.ttys) {
    if (tty.pgrp() == 0 || (tty.sid() == 0 && !options.shell_job)) continue;
    const auto file = std::ranges::find_if(
        s.files, [&](const auto& f) { return f.second.has_tty() && f.second.tty().tty_info_id() == id; });
    const uint32_t teller = tty.sid() ? tty.sid() : s.tasks.front().node.pid();
    const auto node =
        std::ranges::find_if(plan.tree.nodes, [&](const auto& n) { return n.task >= 0 && n.pid == teller; });
    if (file == s.files.end() || node == plan.tree.nodes.end()) continue;
    remote::Batch batch;
    batch.add(__NR_ioctl, plan.pool.file.at(file->first), TIOCSPGRP, batch.put(tty.pgrp()));
    batch.must("ioctl(TIOCSPGRP)");
    TRY(runners[static_cast<size_t>(node - plan.tree.nodes.begin())].run_checked(batch));
  }
  return {};
}

// Helpers and zombies end, in this order, so that orphans are with their parents and nobody
// is left to be reaped but the zombies.
Result<void> end_the_dead(const tasks::Snapshot& s, const Plan& plan, tasks::Stubs& stubs,
                          std::vector<remote::Runner>& runners) {
  for (const bool helpers : {true, false}) {
    for (size_t i = plan.tree.nodes.size(); i-- > 0;) {
      const int task = plan.tree.nodes[i].task;
      if (helpers ? task >= 0 : task < 0 || !s.tasks[static_cast<size_t>(task)].zombie) continue;
      const uint32_t status = task < 0 ? 0 : s.tasks[static_cast<size_t>(task)].tc().exit_code();
      const pid_t pid = stubs.host_pid(i);
      remote::Batch batch;
      if (const int signal = static_cast<int>(status & 0x7f); signal != 0) {
        // To die of a signal it has to arrive: default action, no core file.
        const uint64_t none[2] = {0, 0}, mask = 0;
        batch.add(__NR_prlimit64, 0, 4 /* RLIMIT_CORE */, batch.data(none, sizeof(none)), 0);
        batch.add(__NR_rt_sigaction, signal, batch.put(kernel::KernelSigaction{}), 0, 8);
        batch.add(__NR_rt_sigprocmask, SIG_SETMASK, batch.put(mask), 0, 8);
        TRY(runners[i].run(batch));
        TRY(kernel::set_sigmask(pid, 0));
        ::kill(pid, signal);
        // SIGKILL does not wait for that, and may be over by now.
        if (auto r = kernel::cont(pid); !r && r.error().code() != Code::kTaskGone) return r;
      } else {
        batch.add(__NR_exit_group, status >> 8 & 0xff);
        TRY(runners[i].start(batch, pid));
      }
      while (true) {
        const auto stop = kernel::wait_stop(pid);
        if (!stop || stop->kind == kernel::Stop::Kind::kExited) break;
        TRY(kernel::cont(pid, stop->kind == kernel::Stop::Kind::kSignal ? stop->signal : 0));
      }
      stubs.forget(i);
      if (!helpers) continue;
      // The real parent is a stub that never waits: have it reap the helper, or it stays a zombie.
      const int creator = plan.tree.nodes[i].creator;
      remote::Batch reap;
      reap.add(__NR_wait4, plan.tree.nodes[i].pid, 0, WNOHANG | __WALL, 0);
      TRY(runners[static_cast<size_t>(creator)].run(reap));
    }
  }
  return {};
}

// Every task has its mappings now: no more writable ones of sealed files, and removed segments live by theirs alone.
Result<void> close_shared_memory(const tasks::Snapshot& s, const tasks::Pool& pool, remote::Runner& runner) {
  remote::Batch batch;
  for (const auto& [file, seals] : s.late_seals) {
    batch.add(__NR_fcntl, pool.file.at(file), F_ADD_SEALS, seals);
    batch.must("fcntl(F_ADD_SEALS) of a memfd");
  }
  for (const auto& [id, segment] : s.segments)
    if (segment.removed) batch.add(__NR_shmctl, id, IPC_RMID, 0), batch.must(cat("shmctl(IPC_RMID) of segment ", id));
  return runner.run_checked(batch);
}

Result<uint64_t> drive(const procfs::Procfs& proc, const tasks::Snapshot& s, const Plan& plan, const Options& options,
                       const tasks::SharedArena& shared, tasks::Stubs& stubs, std::vector<tasks::Driven>& driven) {
  std::vector<remote::Runner> runners;
  for (size_t i = 0; i < plan.tree.nodes.size(); ++i)
    runners.emplace_back(stubs.host_pid(i), shared.code(), shared.arena(i), tasks::SharedArena::kArenaSize,
                         reinterpret_cast<uint8_t*>(shared.arena(i)));
  TRY(let_parents_die(runners));
  TRY(restore_groups(plan, runners));
  TRY(restore_foreground(s, plan, options, runners));
  TRY(end_the_dead(s, plan, stubs, runners));
  uint64_t pages = 0;
  for (size_t i = 0; i < plan.tree.nodes.size(); ++i) {
    const int task = plan.tree.nodes[i].task;
    if (task < 0 || s.tasks[static_cast<size_t>(task)].zombie) continue;
    tasks::Driven d{.image = &s.tasks[static_cast<size_t>(task)], .runner = runners[i], .tids = {stubs.host_pid(i)}};
    const std::string name = cat("pid ", d.image->node.pid(), " of the images");
    const memory::TaskPlan how{plan.premaps[static_cast<size_t>(task)], plan.vdsos[static_cast<size_t>(task)]};
    TRY_CTX(memory::clear(d.runner, memory::unite(how.premap.kept, {{shared.begin(), shared.end()}})), name);
    TRY(check_interrupted());
    pages += TRY_CTX(memory::rebuild(d.runner, *d.image, how, plan.pool, s.segments), name);
    TRY_CTX(tasks::create_threads(proc, d), name);
    TRY_CTX(tasks::restore_thread_dirs(d, plan.pool.file), name);
    driven.push_back(std::move(d));
  }
  TRY(close_shared_memory(s, plan.pool, driven.front().runner));
  return pages;
}

// What the root of a user namespace could not open: it has no rights on the host's files.
Result<void> hold_images(image::Reader& images, const tasks::Snapshot& s) {
  if (!s.users) return {};
  std::vector<std::string> names;
  for (const auto& mount : s.mounts)
    if (const auto name = mounts::content_image_name(mount.root_dev()); images.exists(name)) names.push_back(name);
  for (const auto& name : TRY(list_dir(images.dirfd(), ".")))
    for (const char* kind : {"pages-", "pagemap-shmem-", "tcp-stream-", "ghost-file-", "ipcns-", "utsns-", "mqueue-"})
      if (name.starts_with(kind) && images.exists(name)) names.push_back(name);
  return images.hold_open(names);
}

// The root of a user namespace may not join a namespace that does not belong to it: it is born there.
Result<tasks::Stubs> create_root(tasks::StubEnv& env, const Plan& plan) {
  if (!env.snapshot.users) return tasks::Stubs::create(env, plan.new_namespaces);
  const auto groups = TRY(namespaces::BirthGroups::take(
      *env.snapshot.users, env.snapshot.tasks.front().threads.front().thread_core().creds()));
  const auto inside = TRY(namespaces::Inside::join(plan.join));
  return tasks::Stubs::create(env, plan.new_namespaces);
}

// What of the new namespaces is the engine's to do, with its rights on the host.
Result<void> set_up_from_outside(const tasks::Snapshot& s, const Plan& plan, const Options& options, int root_pidfd,
                                 int sources_socket) {
  if (const unsigned long own = plan.new_namespaces & (CLONE_NEWUTS | CLONE_NEWIPC)) {
    const auto inside = TRY(namespaces::Inside::enter(root_pidfd, own));
    const auto done = namespaces::restore(*s.images, own, s.tasks.front().ids);
    if (!done && !(s.users && done.error().code() == Code::kPermission)) return done;
  }
  if (!s.users) return {};
  std::vector<Fd> sources;
  {
    const auto inside = TRY(namespaces::Inside::enter(root_pidfd, CLONE_NEWNS));
    sources = TRY(mounts::open_sources(plan.mounts, options.root));
  }
  return mounts::send_sources(sources_socket, sources);
}

// Locks come last: who takes one closes what it has of the pool before, for all who share its file table.
Result<void> finish_files(const files::RestoreEnv& files, std::vector<tasks::Driven>& driven) {
  for (const bool locks : {false, true}) {
    for (auto& d : driven) {
      remote::Batch batch;
      if (locks)
        files::take_own_locks(d.image->node.pid(), files, batch);
      else
        TRY(files::late(d.image->node.pid(), d.image->fds, files, batch));
      if (!batch.empty()) TRY_CTX(d.runner.run_checked(batch), "pid ", d.image->node.pid(), " of the images");
    }
  }
  return {};
}

// From the first credential on, nothing privileged can be done in a task any more.
Result<void> finish(const procfs::Procfs& proc, const tasks::Snapshot& s, const Plan& plan,
                    const tasks::SharedArena& shared, std::vector<tasks::Driven>& driven) {
  for (auto& d : driven) TRY_CTX(tasks::open_labels(proc, d, plan.pool.proc), "pid ", d.image->node.pid());
  for (auto& d : driven) {
    const std::string name = cat("pid ", d.image->node.pid(), " of the images");
    TRY_CTX(tasks::restore_signals(d), name);
    TRY_CTX(tasks::restore_from_outside(proc, d), name);
    TRY_CTX(tasks::restore_threads(d, s.seccomp), name);
    TRY_CTX(tasks::begin_sleeps(d), name);
  }
  // The first to leave a file table closes what the others have used until now.
  for (auto& d : driven) {
    const std::string name = cat("pid ", d.image->node.pid(), " of the images");
    TRY_CTX(tasks::leave(d, plan.pool.base, shared.begin(), shared.end()), name);
    TRY_CTX(tasks::restore_registers(d), name);
  }
  return {};
}

// A stopped task stops again before its first instruction, and before it takes any signal that waits for it.
Result<void> stop_again(const tasks::Driven& d) {
  const pid_t pid = d.tids[0];
  const uint64_t mask = TRY(kernel::get_sigmask(pid));
  TRY(kernel::set_sigmask(pid, ~uint64_t{0}));
  const int wanted = d.image->tc().has_stop_signo() ? static_cast<int>(d.image->tc().stop_signo()) : SIGSTOP;
  const bool by_terminal = wanted == SIGTSTP || wanted == SIGTTIN || wanted == SIGTTOU;
  // An orphaned process group takes no stop from a terminal (setpgid(2)).
  for (const int signal : {by_terminal ? wanted : SIGSTOP, SIGSTOP}) {
    ::kill(pid, SIGSTOP);
    TRY(kernel::cont(pid));
    auto stop = TRY(kernel::wait_stop(pid, 5000));
    if (stop.kind != kernel::Stop::Kind::kSignal || stop.signal != SIGSTOP) break;
    TRY(kernel::cont(pid, signal));
    if (kernel::wait_stop(pid, 300)) break;
    TRY(remote::to_event_stop(pid));
  }
  return kernel::set_sigmask(pid, mask);
}

void let_go(const std::vector<tasks::Driven>& driven) {
  for (const auto& d : driven) {
    if (d.image->tc().task_state() == tasks::kTaskStopped)
      if (auto r = stop_again(d); !r) log::warning("pid ", d.tids[0], ": ", r.error().message(), ", ignoring");
    for (pid_t tid : d.tids)
      if (auto r = kernel::detach(tid); !r) log::warning("pid ", tid, ": ", r.error().message(), ", ignoring");
  }
}

// From here on the peers hear of it. The lock of the checkpoint goes last: now every packet finds its socket.
Result<void> let_connections_go(const tasks::Snapshot& s, files::HeldConnections& connections, int root_pidfd) {
  TRY(connections.release());
  const auto* manifest = s.images->manifest();
  if (!manifest || !files::is_lock_table_name(manifest->network_lock())) return {};
  const auto inside = TRY(namespaces::Inside::enter(root_pidfd, CLONE_NEWNET));
  if (auto removed = files::remove_lock_table(manifest->network_lock()); !removed)
    log::warning("network lock ", manifest->network_lock(), ": ", removed.error().message(), ", ignoring");
  return {};
}

// LXC's init dies with its monitor. Whoever was the parent is gone, and an engine that only detaches is none.
void forget_parent_signal(tasks::Snapshot& s) {
  if (s.tasks.empty()) return;
  for (auto& thread : s.tasks.front().threads) {
    if (thread.thread_core().pdeath_sig() == 0) continue;
    log::warning(
        "the root task has asked for a signal at its parent's death, which a detached one cannot have, ignoring");
    thread.mutable_thread_core()->set_pdeath_sig(0);
  }
}

}  // namespace

Result<Restored> restore(const Options& options, Notifier& notifier) {
  const auto start = now();
  const InterruptGuard guard;
  const auto proc = TRY(procfs::Procfs::open());
  auto images = TRY(image::Reader::open(options.images_dir.get()));
  auto snapshot = TRY(tasks::load(images));
  TRY(hold_images(images, snapshot));
  if (options.client) TRY(check_client_images(snapshot, *options.client));
  TRY(tasks::plan_labels(proc, options, snapshot));
  if (options.tcp_close && options.into.pid)
    return fail(Error(Code::kUnsupported, "--tcp-close does not go together with --into").about("--tcp-close"));
  if (options.parent == RestoreParent::kDetached) forget_parent_signal(snapshot);
  if (options.cgroup_roots_required && !snapshot.cgroup)
    return fail(
        Error(Code::kCgroupRoot, "the images hold no control groups; the checkpoint was made without --manage-cgroups")
            .about("--cgroup-root"));
  std::optional<cgroups::Hierarchies> host;
  if (options.cgroup_mode != CgroupMode::kIgnore && snapshot.cgroup)
    host = TRY(cgroups::Hierarchies::read(options.cgroup_yard));
  std::vector<Fd> keep;
  // Before the plan, which keeps off the descriptors that are open.
  std::map<uint64_t, Fd> shared_objects;
  if (snapshot.namespaces & CLONE_NEWUSER)
    for (const auto& [id, object] : snapshot.shared) shared_objects[id] = TRY(memory::make_shared(object, proc.fd()));
  Plan plan = TRY(make_plan(proc, snapshot, options, host ? &*host : nullptr, keep));
  const into::Ground runtime_ground = TRY(into::look(proc, snapshot, plan.tree, plan.mounts, options));
  log::info("restore: ", snapshot.tasks.size(), " processes are planned");
  TRY(notifier.notify("pre-restore"));

  std::optional<cgroups::Ground> ground;
  std::optional<Janitor> janitor;
  if (host) {
    ground.emplace(TRY(cgroups::Ground::create(plan.cgroups, *host)));
    if (!ground->created().empty()) janitor.emplace(TRY(Janitor::start([&] { ground.reset(); })));
  }
  // Binds of control groups may show those that were made just now.
  const bool adopt = options.into.pid != 0;
  if (auto missing = mounts::missing_sources(plan.mounts); !adopt && !missing.empty())
    return fail(std::move(missing.front()));
  const auto shared = TRY(tasks::SharedArena::create(plan.hole, plan.tree.nodes.size(), adopt));
  auto files_env = tasks::files_env(snapshot, options, plan.pool, proc.fd());
  if (options.orphan_pts_master)
    files_env.orphan_master = [&](int fd) { return notifier.notify("orphan-pts-master", 0, fd); };
  Fd sources_in, sources_out;  // for mounts::receive_sources()
  if (snapshot.users) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return fail_sys("socketpair");
    sources_in = Fd(ends[0]), sources_out = Fd(ends[1]);
  }
  tasks::StubEnv env{.snapshot = snapshot,
                     .plan = plan.tree,
                     .options = options,
                     .shared = shared,
                     .ground = ground ? &*ground : nullptr,
                     .joined = plan.time ? static_cast<unsigned long>(CLONE_NEWTIME) : 0,
                     .adopted = adopt};
  env.shared_objects = std::move(shared_objects);
  env.pool = plan.pool;
  env.premaps = &plan.premaps;
  env.taken = plan.taken;
  env.set_up_namespaces = [&]() -> Result<void> {
    if (snapshot.users) {
      TRY(namespaces::become_root(*snapshot.users));
      // Since Linux 6.9 the limits of ipc belong to the root of the user namespace, before to that of the host.
      TRY(namespaces::restore(images, plan.new_namespaces, snapshot.tasks.front().ids));
    } else {
      for (auto [fd, type] : plan.join) TRY(kernel::setns(fd, type, "joined namespace"));
    }
    TRY(namespaces::restore_objects(images, plan.new_namespaces, snapshot.tasks.front().ids));
    if (plan.time) TRY(namespaces::enter_new_time(proc, *plan.time));
    if (!(snapshot.namespaces & CLONE_NEWNS)) return {};
    mounts::ApplyEnv apply;
    if (snapshot.users)
      apply.sources = TRY(mounts::receive_sources(sources_in.get(), mounts::count_sources(plan.mounts)));
    apply.root_source = options.root;
    apply.open_content = [&](const std::string& name) { return images.open_raw(name); };
    auto applied = TRY(mounts::apply(plan.mounts, apply));
    for (auto& pty : applied.ptys) files_env.masters[pty.index] = std::move(pty.fd);
    for (auto& [s_dev, masters] : applied.unused) files_env.masters_unused.merge(masters);
    return {};
  };
  tasks::give_files(env, files_env);
  env.spare_masters = [&] {
    std::vector<int> spare;
    for (const auto& [index, fd] : files_env.masters)
      if (fd.valid() && !files_env.masters_given.contains(index)) spare.push_back(fd.get());
    return spare;
  };

  const auto fork_start = now();
  auto stubs = TRY(adopt ? into::hand_over(env) : create_root(env, plan));
  TRY(stubs.next_stage());
  if (adopt)
    TRY(into::fill(snapshot, runtime_ground, options));
  else
    TRY(set_up_from_outside(snapshot, plan, options, stubs.root_pidfd(), sources_out.get()));
  TRY(check_interrupted());
  log::info("restore: root task is pid ", stubs.root());
  if (plan.new_namespaces) TRY(notifier.notify("setup-namespaces", stubs.root()));
  std::optional<namespaces::Network> network;
  if (plan.new_namespaces & CLONE_NEWNET)
    network.emplace(TRY(namespaces::Network::create(plan.net, stubs.root_pidfd())));
  TRY(stubs.next_stage());
  log::info("restore: namespaces and mounts are set up");
  if (plan.new_namespaces) TRY(notifier.notify("post-setup-namespaces"));
  TRY(check_interrupted());
  TRY(stubs.next_stage());
  TRY(stubs.create_extra_roots());
  TRY(stubs.seize_all());
  TRY(check_interrupted());
  const auto masters = TRY(stubs.spare_masters());
  log::info("restore: all tasks are created");
  Restored result;
  result.root_pid = stubs.root();
  result.stats.forking_us = us_since(fork_start);

  std::vector<tasks::Driven> driven;
  result.stats.pages_restored = TRY(drive(proc, snapshot, plan, options, shared, stubs, driven));
  for (auto& d : driven) {
    d.as_client = options.client.has_value();
    d.setgroups = !snapshot.users || snapshot.users->setgroups;
  }
  log::info("restore: memory is filled");
  auto connections = TRY(files::HeldConnections::take(stubs.root_pidfd(), files_env));  // out of the pool
  TRY(finish_files(files_env, driven));
  TRY(finish(proc, snapshot, plan, shared, driven));
  if (adopt) TRY(into::take_down(options));
  result.stats.restore_us = us_since(start);
  log::info("restore: all tasks are ready");
  TRY(check_interrupted());
  if (network) TRY(network->connect());
  TRY(notifier.notify("post-restore", stubs.root()));
  TRY(check_interrupted());
  const bool own_net = (snapshot.namespaces & CLONE_NEWNET) != 0;
  if (own_net) (void)notifier.notify("network-unlock");
  if (auto r = notifier.notify("pre-resume"); !r) log::warning("pre-resume: ", r.error().message(), ", ignoring");
  // The last moment at which this is a failure of ours: later it is the container that has ended.
  if (kernel::pidfd_wait_exit(stubs.root_pidfd(), 0))
    return fail(Error(Code::kTaskGone, cat("the root task, pid ", stubs.root(), ", died during the restore"))
                    .about(cat("pid ", stubs.root())));

  if (!masters.empty()) {
    TRY(keep_terminals(masters, stubs.root()));
    log::warning("the client gives no other end for ", masters.size(),
                 " terminals of the container: they live, and what is written to them is dropped, ignoring");
  }
  if (ground) TRY(restore_device_filters(*ground));
  if (ground) TRY(ground->restore_freezer());
  if (ground) ground->commit();
  if (network) network->commit();
  TRY(let_connections_go(snapshot, connections, stubs.root_pidfd()));
  stubs.commit();
  let_go(driven);
  // What is released is not taken back: a signal that came after the last look must not
  // kill us with its default action and make a success look like a failure.
  if (auto r = check_interrupted(); !r) log::warning(r.error().message(), " when all was done, ignoring");
  log::info("restore: released");
  if (auto r = notifier.notify("post-resume"); !r) log::warning("post-resume: ", r.error().message(), ", ignoring");
  return result;
}

}  // namespace stasis
