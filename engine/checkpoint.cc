// SPDX-License-Identifier: Apache-2.0
// The dump line: preflight, freeze, lock, collect, ask, dump, memory, commit, finish. Every
// stage takes what the one before it made; whatever fails, the scopes let the tasks go on.
#include <sys/utsname.h>
#include <time.h>

#include <set>

#include "cgroups/dump.h"
#include "engine/arrivals.h"
#include "engine/base/interrupt.h"
#include "engine/base/io.h"
#include "engine/checkpoint_lock.h"
#include "engine/client_check.h"
#include "engine/connection_lock.h"
#include "engine/device_filters.h"
#include "engine/engine.h"
#include "engine/files/collect.h"
#include "engine/image/stats.h"
#include "engine/image/writer.h"
#include "engine/janitor.h"
#include "engine/kernel/syscalls.h"
#include "engine/memory/keys.h"
#include "engine/memory/pages.h"
#include "engine/memory/shared.h"
#include "engine/namespaces/namespaces.h"
#include "engine/namespaces/posix_queues.h"
#include "engine/preflight.h"
#include "engine/tasks/dump_core.h"
#include "engine/tasks/labels.h"
#include "engine/tasks/landlock.h"
#include "engine/tasks/sharing.h"
#include "engine/tasks/sleeps.h"
#include "engine/tasks/step_out.h"
#include "mounts/content.h"
#include "mounts/dump.h"
#include "proto/inventory.pb.h"

namespace stasis {
namespace {

using image::Kind;

uint32_t us_since(const timespec& start) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint32_t>((now.tv_sec - start.tv_sec) * 1000000 + (now.tv_nsec - start.tv_nsec) / 1000);
}

timespec now() {
  timespec ts{};
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts;
}

// All that the stages hand on.
struct Dump {
  const Options& options;
  const procfs::Procfs& proc;
  tasks::FrozenTree& tree;
  image::Writer& images;
  memory::MapContext map_context;
  memory::SharedObjects shared;
  namespaces::Owned owned;
  std::optional<mounts::Table> mounts;
  pb::task_kobj_ids_entry ids;  // namespace ids of the container
  DumpStats stats;
  std::map<pid_t, memory::AddressSpace> spaces;  // of the tasks dumped so far
  // Pages in the file of a parent only, an exited leader, a thread with its own cwd, POSIX message queues.
  bool stasis_only = false;
  const files::LockedSockets* connections = nullptr;
  tasks::Shared shared_files, shared_fs;
  std::map<pid_t, uint32_t> numbers;  // of ids that are a process's own
  const procfs::UserMaps* users() const { return owned.users ? &*owned.users : nullptr; }
};

std::string img(const char* stem, uint32_t id) { return cat(stem, "-", id, ".img"); }

Result<void> dump_mounts(Dump& d) {
  if (!d.mounts) return {};
  const auto engine_table = TRY(mounts::Table::read(d.proc.fd(), "self"));
  const auto entries =
      TRY(mounts::dump(*d.mounts, d.options, engine_table, static_cast<uint32_t>(d.owned.flags), d.users()));
  TRY(d.images.put_all(Kind::kMnts, img("mountpoints", d.ids.mnt_ns_id()), entries));
  for (const auto& job : mounts::content_jobs(*d.mounts, entries)) {
    Fd root;
    if (d.users()) {
      root = TRY_CTX(mounts::open_mount_root_inside(d.tree.root().pidfd.get(), *d.mounts, job.mnt_id), "mount ",
                     job.mountpoint);
    } else {
      // Entered anew for each: looking under other mounts leaves us in a copy of the namespace.
      auto inside = TRY(namespaces::Inside::enter(d.tree.root().pidfd.get(), CLONE_NEWNS));
      root = TRY_CTX(mounts::open_mount_root(*d.mounts, job.mnt_id), "mount ", job.mountpoint);
    }
    if (job.kind == mounts::ContentJob::Kind::kMustBeEmpty) {
      // What the ipc namespace shows there comes back with it.
      if (struct stat st{}; ::fstat(root.get(), &st) == 0 && (d.owned.flags & CLONE_NEWIPC) &&
                            st.st_dev == TRY(namespaces::posix_queues_device(d.tree.root().pidfd.get())))
        continue;
      TRY(mounts::check_empty(root.get(), job.mountpoint));
      continue;
    }
    auto file = TRY(d.images.open_raw(job.image_name));
    TRY_CTX(mounts::write_archive(root.get(), file.fd(), d.users()), "contents of ", job.mountpoint);
    TRY(file.finish_external());
    TRY(file.close());
  }
  return {};
}

// Which control group set every process is in.
Result<std::map<pid_t, uint32_t>> dump_cgroups(Dump& d) {
  if (d.options.cgroup_mode == CgroupMode::kIgnore) return std::map<pid_t, uint32_t>{};
  const auto hierarchies = TRY(cgroups::Hierarchies::read(d.options.cgroup_yard));
  std::vector<cgroups::TaskMembership> members;
  cgroups::Membership ns_roots;
  if (d.owned.flags & CLONE_NEWCGROUP) ns_roots = TRY(cgroups::read_namespace_roots(d.tree.root().pid));
  for (const auto& p : d.tree.processes())
    if (!p.zombie) members.push_back({p.pid, TRY(cgroups::read_membership(p.pid)), ns_roots});
  cgroups::DumpOptions how;
  how.roots = d.options.cgroup_roots;
  how.only_controllers = d.options.cgroup_dump_controllers;
  how.frozen = d.tree.was_frozen();
  auto dumped = TRY(cgroups::dump(hierarchies, how, members));
  TRY(d.images.put(Kind::kCgroup, "cgroup.img", dumped.entry));
  TRY(dump_device_filters(hierarchies, dumped.entry, d.images));
  return std::move(dumped.set_of);
}

// Pages that a task has had from its parent since fork: the manifest names them, so that they are shared again. If they
// are many they are not written twice, and the images can then not be read by CRIU.
Result<memory::Runs> dump_inherited(Dump& d, const tasks::Process& p, const memory::AddressSpace& space) {
  constexpr uint64_t kWorthIt = 8u << 20;
  const auto parent = d.spaces.find(p.parent);
  if (parent == d.spaces.end()) return memory::Runs{};
  auto runs = TRY(memory::find_inherited(d.proc, space, parent->second));
  if (runs.empty()) return runs;
  pb::inherited_pages entry;
  entry.set_pid(static_cast<uint32_t>(p.npid));
  for (const auto& run : runs) entry.add_runs(run.start), entry.add_runs((run.end - run.start) / kernel::kPageSize);
  d.images.add_inherited_pages(entry);
  if (memory::total(runs) < kWorthIt) return memory::Runs{};
  d.stasis_only = true;
  return runs;
}

// Mappings with their file ids, then the pages.
Result<void> dump_memory(Dump& d, tasks::Process& p, uint32_t pages_id, std::vector<memory::Vma> vmas) {
  pb::memory_extra extra;
  extra.set_pid(static_cast<uint32_t>(p.npid));
  for (const auto& vma : vmas) memory::add_extras(vma, extra);
  TRY(memory::dump_keys(*p.runner, vmas, extra));
  if (const uint32_t future = TRY(memory::lock_future(d.proc, p.pid, p.runner->arena(), vmas)))
    extra.set_lock_future(future);
  const auto start = now();
  const auto& space = d.spaces[p.tgid] =
      TRY_CTX(memory::find_contents(d.proc, p.pid, std::move(vmas)), "memory of pid ", p.pid);
  const auto elsewhere = TRY(dump_inherited(d, p, space));
  auto pagemap = TRY(image::PagemapWriter::create(d.images, img("pagemap", static_cast<uint32_t>(p.npid)), pages_id));
  auto pages = TRY(d.images.open_raw(img("pages", pages_id)));
  const auto stats =
      TRY_CTX(memory::dump_pages(d.proc, space, elsewhere, d.tree.processes().size() == 1, pagemap, pages),
              "memory of pid ", p.pid);
  TRY(pagemap.finish());
  TRY(pages.close());
  for (const auto& guard : space.guards) {
    auto& range = *extra.add_guards();
    range.set_start(guard.start), range.set_end(guard.end);
  }
  if (extra.vmas_size() || extra.guards_size() || extra.has_lock_future() || extra.has_allocated_keys())
    d.images.add_memory_extra(extra);
  d.stats.pages_scanned += stats.scanned;
  d.stats.pages_written += stats.written;
  d.stats.memdump_us += us_since(start);
  return {};
}

Result<std::vector<memory::Vma>> collect_vmas(Dump& d, tasks::Process& p, files::Collector& files) {
  std::vector<Error> obstacles;
  auto vmas = memory::classify(d.map_context, TRY(d.proc.smaps(p.pid)), p.pid, obstacles);
  if (!obstacles.empty()) return fail(std::move(obstacles.front()));
  for (auto& vma : vmas) {
    const auto segment = vma.entry.shmid();
    if ((vma.entry.status() & memory::kVmaSysvipc) && !d.shared.has_segment(segment))
      return fail(Error(Code::kUnsupportedMemory,
                        cat("pid ", p.pid, " maps the System V segment ", segment, " of another ipc namespace"))
                      .about(cat("pid ", p.pid)));
    if (vma.shared_object) TRY(d.shared.add(d.proc, p.pid, vma));
    if (!vma.file_backed) continue;
    const bool write_through = vma.map.shared && (vma.map.write || vma.map.flag("mw"));
    vma.entry.set_shmid(TRY(files.dump_mapped(p.pid, vma.map, write_through ? O_RDWR : O_RDONLY)));
  }
  return vmas;
}

// All at once: a tree of many tasks stands still for as long as one of them takes.
Result<void> infect(tasks::FrozenTree& tree) {
  std::vector<pid_t> pids;
  std::vector<tasks::Process*> of;
  for (auto& p : tree.processes())
    if (!p.zombie) pids.push_back(p.pid), of.push_back(&p);
  auto runners = remote::Runner::infect(pids);
  Result<void> result;
  for (size_t i = 0; i < pids.size(); ++i)
    if (runners[i])
      of[i]->runner.emplace(*std::move(runners[i]));
    else if (result)
      result = fail(std::move(runners[i]).error().context(cat("pid ", pids[i])));
  return result;
}

// Threads may have left their process's root and cwd, unshare(2).
Result<void> dump_thread_dirs(Dump& d, const tasks::Process& p, files::Collector& files, tasks::DumpedCore& core) {
  for (size_t i = 0; i < p.threads.size(); ++i) {
    const pid_t tid = p.threads[i].tid;
    if (p.threads[i].exited || tid == p.pid || kernel::kcmp(p.pid, tid, kernel::Kcmp::kFs) == 0) continue;
    const auto dirs = TRY(files.dump_thread(p.pid, tid));
    auto& extra = core.extras[i];
    extra.set_cwd_id(dirs.cwd_id), extra.set_root_id(dirs.root_id);
    extra.set_umask(TRY(d.proc.thread_status(p.pid, tid)).umask);
    d.stasis_only = true;
  }
  return {};
}

Result<void> dump_process(Dump& d, tasks::Process& p, const tasks::Answers& answers, files::Collector& files,
                          tasks::SeccompTable& seccomp, const std::map<pid_t, uint32_t>& cgroup_sets, uint32_t index,
                          std::vector<memory::Vma> vmas) {
  log::debug("dumping pid ", p.pid, " (", p.npid, " in the container), ", p.threads.size(), " threads");
  auto core = TRY(tasks::dump_core(d.proc, p, answers, seccomp, d.users()));
  const auto files_of = d.shared_files.find(p.pid), fs_of = d.shared_fs.find(p.pid);
  const bool own_files = files_of == d.shared_files.end();
  const auto task_files = TRY(files.dump_task(p, own_files));
  for (const auto& vma : vmas) *core.mm.add_vmas() = vma.entry;
  core.mm.set_exe_file_id(task_files.exe_id);
  TRY(dump_thread_dirs(d, p, files, core));

  auto ids = d.ids;
  d.numbers[p.pid] = index;
  ids.set_vm_id(index), ids.set_sighand_id(index);
  ids.set_files_id(own_files ? index : d.numbers.at(files_of->second));
  ids.set_fs_id(fs_of == d.shared_fs.end() ? index : d.numbers.at(fs_of->second));
  const auto npid = static_cast<uint32_t>(p.npid);
  if (const auto set = cgroup_sets.find(p.pid); set != cgroup_sets.end())
    core.threads[0].mutable_tc()->set_cg_set(set->second);
  *core.threads[0].mutable_ids() = ids;
  for (size_t i = 0; i < p.threads.size(); ++i)
    TRY(d.images.put(Kind::kCore, img("core", static_cast<uint32_t>(p.threads[i].ntid)), core.threads[i]));
  for (const auto& extra : core.extras) d.images.add_task_extra(extra);
  if (p.threads.front().exited) d.stasis_only = true;
  TRY(d.images.put(Kind::kIds, img("ids", npid), ids));
  TRY(d.images.put(Kind::kMm, img("mm", npid), core.mm));
  if (own_files) TRY(d.images.put_all(Kind::kFdinfo, img("fdinfo", ids.files_id()), task_files.fds));
  pb::fs_entry fs;
  fs.set_cwd_id(task_files.cwd_id), fs.set_root_id(task_files.root_id), fs.set_umask(p.status.umask);
  TRY(d.images.put(Kind::kFs, img("fs", npid), fs));
  return dump_memory(d, p, index, std::move(vmas));
}

Result<void> dump_tree(Dump& d) {
  std::vector<pb::pstree_entry> entries;
  for (const auto& p : d.tree.processes()) {
    auto& e = entries.emplace_back();
    e.set_pid(static_cast<uint32_t>(p.npid));
    e.set_ppid(p.parent ? static_cast<uint32_t>(d.tree.to_container(p.parent)) : 0);
    e.set_pgid(static_cast<uint32_t>(p.npgid));
    e.set_sid(static_cast<uint32_t>(p.nsid));
    for (const auto& t : p.threads) e.add_threads(static_cast<uint32_t>(t.ntid));
    if (p.zombie) e.add_threads(static_cast<uint32_t>(p.npid));
  }
  return d.images.put_all(Kind::kPstree, "pstree.img", entries);
}

Result<void> write_packets(Dump& d, const files::Packets& all) {
  auto queues = TRY(d.images.open(Kind::kSkQueues, "sk-queues.img"));
  for (const auto& [id, packets] : all)
    for (const auto& packet : packets) {
      TRY(queues.append(packet.entry));
      TRY(queues.append_payload(packet.bytes.data(), packet.bytes.size()));
    }
  return queues.close();
}

Result<void> write_files(Dump& d, const files::DumpOutput& out) {
  TRY(d.images.put_all(Kind::kFiles, "files.img", out.files));
  if (!out.remaps.empty()) TRY(d.images.put_all(Kind::kRemapFpath, "remap-fpath.img", out.remaps));
  std::vector<pb::file_lock_entry> locks;
  files::add_locks_image(out.locks, locks);
  if (!locks.empty()) TRY(d.images.put_all(Kind::kFileLocks, "filelocks.img", locks));
  if (!out.memfds.empty()) TRY(d.images.put_all(Kind::kMemfdInode, "memfd.img", out.memfds));
  auto write_pipes = [&](Kind kind, const std::string& name, const auto& pipes) -> Result<void> {
    auto data = TRY(d.images.open(kind, name));
    for (const auto& [id, pipe] : pipes) {
      TRY(data.append(pipe.entry));
      TRY(data.append_payload(pipe.bytes.data(), pipe.bytes.size()));
    }
    return data.close();
  };
  // What is empty is left out, as CRIU does, which in a user namespace may not open these.
  if (!out.pipes.empty()) TRY(write_pipes(Kind::kPipesData, "pipes-data.img", out.pipes));
  if (!out.fifos.empty()) TRY(write_pipes(Kind::kFifoData, "fifo-data.img", out.fifos));
  if (!out.packets.empty()) TRY(write_packets(d, out.packets));
  if (!out.tty_data.empty()) TRY(d.images.put_all(Kind::kTtyData, "tty-data.img", out.tty_data));
  std::vector<pb::tty_info_entry> ttys;
  for (const auto& [id, tty] : out.ttys) ttys.push_back(tty);
  return ttys.empty() ? Result<void>() : d.images.put_all(Kind::kTtyInfo, "tty-info.img", ttys);
}

Result<void> write_inventory(Dump& d, std::optional<uint32_t> root_set) {
  pb::inventory_entry inventory;
  inventory.set_img_version(d.stasis_only ? image::kSharedImageVersion : image::kImageVersion);
  inventory.set_fdinfo_per_id(true);
  inventory.set_ns_per_id(true);
  auto& ids = *inventory.mutable_root_ids();
  ids.set_vm_id(0), ids.set_files_id(0), ids.set_fs_id(0), ids.set_sighand_id(0);
  namespaces::set_engine_ids(ids);
  if (root_set) inventory.set_root_cg_set(*root_set);
  inventory.set_lsmtype(tasks::has_apparmor() ? pb::APPARMOR : pb::NO_LSM);
  timespec uptime{};
  clock_gettime(CLOCK_BOOTTIME, &uptime);
  inventory.set_dump_uptime(static_cast<uint64_t>(uptime.tv_sec) * 1000000 +
                            static_cast<uint64_t>(uptime.tv_nsec) / 1000);
  return d.images.put(Kind::kInventory, "inventory.img", inventory);
}

Result<void> dump_everything(Dump& d) {
  if (d.owned.flags & CLONE_NEWNS) d.mounts = TRY(mounts::Table::read(d.proc.fd(), cat(d.tree.root().pid)));
  files::DumpEnv env{.options = d.options, .proc = d.proc, .root_pid = d.tree.root().pid};
  if (d.mounts) env.mounts = &*d.mounts;
  env.users = d.users();
  env.connections = d.connections;
  env.root_dir = TRY(d.proc.open_file(d.tree.root().pid, "root", O_PATH | O_DIRECTORY));
  for (const auto& p : d.tree.processes()) env.pids.emplace(p.tgid, p.npid);
  env.net_ns_id = d.ids.net_ns_id();
  env.ids = &d.ids;
  files::DumpOutput output;
  output.images = &d.images;
  output.shared = &d.shared;
  files::Collector files(env, output);
  tasks::SeccompTable seccomp;

  TRY(dump_tree(d));
  const auto sets = TRY(dump_cgroups(d));
  TRY(namespaces::dump(d.tree.root().pidfd.get(), d.owned, d.options, d.ids, d.images, d.shared));
  if (d.owned.flags & CLONE_NEWIPC)
    d.stasis_only |= TRY(namespaces::dump_posix_queues(d.tree.root().pidfd.get(), d.images, d.users()));
  TRY(dump_mounts(d));
  // The mappings are read before the runner comes in: the kernel may merge its arena with a neighbour.
  std::map<pid_t, std::vector<memory::Vma>> vmas;
  for (auto& p : d.tree.processes())
    if (!p.zombie) {
      vmas[p.pid] = TRY(collect_vmas(d, p, files));
      TRY(tasks::step_out_of_vdso(p, vmas[p.pid]));
      TRY(memory::check_key_zero(p));
    }
  d.shared_files = tasks::find_shared(d.tree.processes(), kernel::Kcmp::kFiles);
  d.shared_fs = tasks::find_shared(d.tree.processes(), kernel::Kcmp::kFs);
  const auto probes = TRY(tasks::LandlockProbes::start(d.tree, (d.owned.flags & CLONE_NEWPID) != 0, d.users()));
  TRY(infect(d.tree));
  const auto answers = TRY(tasks::ask_all(d.tree.processes()));
  uint32_t index = 1;
  for (auto& p : d.tree.processes()) {
    TRY(check_interrupted());
    if (p.zombie)
      TRY(d.images.put(Kind::kCore, img("core", static_cast<uint32_t>(p.npid)), tasks::dump_zombie(p)));
    else
      TRY(dump_process(d, p, answers.at(p.pid), files, seccomp, sets, index++, std::move(vmas[p.pid])));
  }
  TRY(files::finish_dump(env, output));
  d.stasis_only |= !output.queues.empty();
  if (!seccomp.empty()) TRY(d.images.put(Kind::kSeccomp, "seccomp.img", seccomp.entry()));
  TRY(write_files(d, output));
  d.stats.pages_written += d.shared.pages_written();
  std::optional<uint32_t> root_set;
  if (const auto set = sets.find(d.tree.root().pid); set != sets.end()) root_set = set->second;
  return write_inventory(d, root_set);
}

// The container as it stands now may differ from what the preflight saw: look again.
Result<namespaces::Owned> recheck(const procfs::Procfs& proc, const tasks::FrozenTree& tree, const Options& options) {
  std::vector<Error> obstacles;
  std::vector<pid_t> others;
  if (options.client)
    for (const auto& p : tree.processes()) check_owner(proc, p.pid, *options.client, obstacles);
  if (!obstacles.empty()) return fail(std::move(obstacles.front()));
  for (const auto& p : tree.processes())
    if (!p.zombie && p.tgid != options.pid) others.push_back(p.pid);
  auto owned = TRY(namespaces::look(proc, tree.processes().front().pid, others, options, obstacles));
  if (options.client) TRY(check_client_namespaces(owned.flags));
  for (const auto& p : tree.processes()) check_process(proc, p, tree.processes(), options, obstacles);
  check_sharing(tree.processes(), options, obstacles);
  TRY(check_semaphores(tree.processes(), owned.flags, obstacles));
  if (!obstacles.empty()) return fail(std::move(obstacles.front()));
  return owned;
}

}  // namespace

Result<DumpStats> checkpoint(const Options& options, Notifier& notifier) {
  const InterruptGuard guard;
  const auto proc = TRY(procfs::Procfs::open());
  const auto lock = lock_checkpoint(proc, options.pid);
  // Whose task may not be looked into may not be checkpointed either; what follows says why.
  if (!lock && lock.error().sys_errno() != EACCES && lock.error().sys_errno() != EPERM) return fail(lock.error());
  if (auto obstacles = TRY(find_obstacles(options)); !obstacles.empty()) {
    Error first = std::move(obstacles.front());
    first.also().assign(std::make_move_iterator(obstacles.begin() + 1), std::make_move_iterator(obstacles.end()));
    return fail(std::move(first));
  }
  if (!lock) return fail(lock.error());
  auto images = TRY(image::Writer::create(options.images_dir.get(), options.replace_images));
  log::info("dump: freezing the tree of pid ", options.pid);
  TRY(notifier.notify("pre-dump"));

  // A paused container has to run for the time of the dump; if we are killed it is paused again.
  std::optional<Janitor> janitor;
  if (!options.freeze_cgroup.empty()) {
    auto freezer = TRY(cgroups::Freezer::open(options.freeze_cgroup));
    if (freezer.was_frozen())
      janitor.emplace(TRY(Janitor::start([&] { (void)freezer.freeze(5000), freezer.forget(); })));
  }
  const auto freeze_start = now();
  std::optional<tasks::FrozenTree> stopped(TRY(tasks::FrozenTree::freeze(proc, options)));
  const uint32_t freezing_us = us_since(freeze_start);
  log::info("dump: frozen, ", stopped->processes().size(), " processes");
  auto owned = TRY(recheck(proc, *stopped, options));
  const bool own_net = (owned.flags & CLONE_NEWNET) != 0;
  if (own_net) TRY(notifier.notify("network-lock"));
  auto unlock = [&](Result<void> result) {
    if (own_net && !result) (void)notifier.notify("network-unlock");
    return result;
  };
  bool ran_on = false;
  auto frozen = now();
  auto arrivals = let_accept(proc, options, stopped, ran_on);
  TRY(unlock(arrivals ? Result<void>() : fail(arrivals.error())));
  tasks::FrozenTree& tree = *stopped;
  if (ran_on) {
    frozen = now();
    auto again = recheck(proc, tree, options);
    TRY(unlock(again ? Result<void>() : fail(again.error())));
    owned = *std::move(again);
  }

  auto locked = ConnectionLock::take(proc, tree, own_net && owned.external_net.empty());
  TRY(unlock(locked ? Result<void>() : fail(locked.error())));
  auto& connections = *locked;

  auto context = memory::map_context(proc, (owned.flags & CLONE_NEWIPC) != 0);
  TRY(unlock(context ? Result<void>() : fail(context.error())));

  // Pages files are numbered from 1: first those of the processes, then those of what they share.
  const auto first_shared = static_cast<uint32_t>(tree.processes().size()) + 1;
  Dump d{.options = options,
         .proc = proc,
         .tree = tree,
         .images = images,
         .map_context = *std::move(context),
         .shared = memory::SharedObjects(images, first_shared),
         .owned = owned};
  d.stats.freezing_us = freezing_us;
  d.connections = &connections.sockets();
  namespaces::set_container_ids(d.owned, d.ids);
  TRY(unlock(notifier.notify("query-ext-files")));
  TRY(unlock(tasks::measure_sleeps(proc, tree.processes())));
  log::info("dump: writing images");
  TRY(unlock(dump_everything(d)));
  const bool goes_on = options.leave_running || options.leave_stopped;
  if (!goes_on) TRY(unlock(connections.outlive(images)));
  log::info("dump: images are written");
  TRY(unlock(check_interrupted()));
  TRY(unlock(notifier.notify("post-dump")));
  TRY(unlock(check_interrupted()));
  d.stats.frozen_us = us_since(frozen);
  if (goes_on) {
    connections.release();
    arrivals->reset();
    // Nothing can be lost any more: the tasks need not wait for the disk.
    TRY(tree.resume(options.leave_stopped));
    if (own_net) (void)notifier.notify("network-unlock");
  }
  const auto write_start = now();
  auto committed = images.commit();
  TRY(goes_on ? std::move(committed) : unlock(std::move(committed)));  // or it has been told already
  d.stats.memwrite_us = us_since(write_start);
  log::info("dump: committed");
  if (!goes_on) {
    connections.let_die();
    TRY(tree.kill_all());
    d.stats.frozen_us = us_since(frozen);
  }
  return d.stats;
}

}  // namespace stasis
