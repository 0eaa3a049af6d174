// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/snapshot.h"

#include <fcntl.h>

#include <algorithm>
#include <set>

#include "engine/files/proc_path.h"
#include "engine/files/tcp_release.h"
#include "engine/kernel/x86_64/ia32.h"
#include "engine/memory/keys.h"
#include "engine/memory/premap.h"
#include "engine/memory/vma.h"
#include "engine/namespaces/namespaces.h"
#include "engine/namespaces/posix_queues.h"
#include "engine/namespaces/user.h"
#include "engine/tasks/seccomp.h"
#include "engine/tasks/timers.h"

namespace stasis::tasks {
namespace {

using image::Kind;

constexpr uint32_t kMaxPid = 1u << 22;  // include/linux/threads.h PID_MAX_LIMIT

std::string img(const char* stem, uint32_t id) { return cat(stem, "-", id, ".img"); }

std::unexpected<Error> corrupt(const std::string& file, std::string what) {
  return fail(Error(Code::kImageCorrupt, cat(file, ": ", what)).about(file));
}

Result<void> check_core(const pb::core_entry& core, const std::string& name, bool leader, bool zombie) {
  if (core.mtype() != pb::core_entry::X86_64)
    return fail(Error(Code::kImageArch, cat(name, " was made on another architecture")).about(name));
  if (leader && !core.has_tc()) return corrupt(name, "no task state");
  if (zombie) return {};
  if (!core.has_thread_info() || !core.has_thread_core()) return corrupt(name, "no thread state");
  const auto& regs = core.thread_info().gpregs();
  if (regs.mode() == pb::COMPAT && (regs.ip() >= kernel::kSpace32 || regs.sp() > kernel::kSpace32 ||
                                    core.thread_core().futex_rla() >= kernel::kSpace32))
    return corrupt(name, "a 32-bit task has larger addresses");
  for (const auto& slot : core.thread_info().tls())
    if (slot.entry_number() - kernel::kFirstTlsSlot >= kernel::kTlsSlots)
      return corrupt(name, cat("slot ", slot.entry_number(), " of the descriptor table"));
  if (regs.ip() >= memory::kTaskSize || regs.sp() > memory::kTaskSize || regs.fs_base() >= memory::kTaskSize ||
      regs.gs_base() >= memory::kTaskSize)
    return corrupt(name, "registers point outside user space");
  if (!core.thread_core().has_creds()) return corrupt(name, "no credentials");
  return {};
}

const pb::task_extra* find_extra(const image::Reader& images, uint32_t pid, uint32_t tid) {
  if (!images.manifest()) return nullptr;
  for (const auto& e : images.manifest()->task_extras())
    if (e.pid() == pid && e.tid() == tid) return &e;
  return nullptr;
}

// Signal actions are those of all threads: one frame fits 64-bit code, another 32-bit code.
Result<void> check_bitness(TaskImage& task, const std::string& name) {
  const auto is_ia32 = [](const pb::core_entry& c) { return c.thread_info().gpregs().mode() == pb::COMPAT; };
  task.ia32 = is_ia32(task.threads.front());
  for (const auto& core : task.threads)
    if (is_ia32(core) != task.ia32)
      return fail(Error(Code::kUnsupported, cat(name, ": threads of 32-bit and of 64-bit code")).about(name));
  for (const auto& e : task.tc().sigactions()) {
    if (e.compat_sigaction() != task.ia32 && e.sigaction() > 1)
      return fail(Error(Code::kUnsupported, cat(name, ": signal handlers of 32-bit and of 64-bit code")).about(name));
    if (task.ia32 &&
        (e.sigaction() >= kernel::kSpace32 || e.flags() >= kernel::kSpace32 || e.restorer() >= kernel::kSpace32))
      return corrupt(name, "a signal handler of a 32-bit task has a larger address");
  }
  return {};
}

Result<void> load_task(const image::Reader& images, TaskImage& task) {
  const uint32_t pid = task.node.pid();
  if (pid == 0 || pid > kMaxPid) return corrupt("pstree.img", cat("pid ", pid));
  std::vector<uint32_t> tids(task.node.threads().begin(), task.node.threads().end());
  // The leader is one of the threads; CRIU writes it first, but that is not promised.
  std::erase(tids, pid);
  tids.insert(tids.begin(), pid);
  task.tids = tids;
  for (uint32_t tid : tids) {
    if (tid == 0 || tid > kMaxPid) return corrupt("pstree.img", cat("thread ", tid));
    const std::string name = img("core", tid);
    task.threads.push_back(TRY(images.read<pb::core_entry>(Kind::kCore, name)));
    const auto& core = task.threads.back();
    if (tid == pid) {
      const uint32_t state = core.tc().task_state();
      task.zombie = state == kTaskDead || state == kTaskZombie;
      if (core.has_tc() && state != kTaskAlive && state != kTaskStopped && !task.zombie)
        return fail(Error(Code::kUnsupported, cat(name, ": task state ", state)).about(name));
    }
    TRY(check_core(core, name, tid == pid, task.zombie));
    task.extras.push_back(find_extra(images, pid, tid));
    if (task.zombie) return {};
  }
  const auto& core = task.threads.front();
  TRY(check_bitness(task, img("core", pid)));
  TRY(check_posix_timers(core.tc().timers(), tids, img("core", pid)));
  task.ids = core.has_ids() ? core.ids() : TRY(images.read<pb::task_kobj_ids_entry>(Kind::kIds, img("ids", pid)));
  task.mm = TRY(images.read<pb::mm_entry>(Kind::kMm, img("mm", pid)));
  TRY(memory::check_vmas(task.mm, img("mm", pid)));
  if (task.mm.mm_saved_auxv_size() > 64 || task.mm.mm_saved_auxv_size() % 2)
    return corrupt(img("mm", pid), "auxiliary vector");
  task.fs = TRY(images.read<pb::fs_entry>(Kind::kFs, img("fs", pid)));
  task.fds = TRY(images.read_all<pb::fdinfo_entry>(Kind::kFdinfo, img("fdinfo", task.ids.files_id())));
  task.pagemap = TRY(image::read_pagemap(images, img("pagemap", pid)));
  if (images.manifest())
    for (const auto& extra : images.manifest()->memory_extras())
      if (extra.pid() == pid) task.memory = &extra;
  if (task.memory) TRY(memory::check_extra(task.mm, *task.memory));
  if (task.memory) TRY(memory::check_keys(task.mm, *task.memory));
  return {};
}

// What a file is opened with.
uint32_t open_flags(const pb::file_entry& file) { return file.has_memfd() ? file.memfd().flags() : file.reg().flags(); }

// A copy of a file under the next free number, opened anew with `access`.
Result<uint32_t> add_file(Snapshot& s, const pb::file_entry& like, uint32_t access) {
  const uint32_t id = s.files.rbegin()->first + 1;
  if (id == 0) return corrupt("files.img", cat("file ", s.files.rbegin()->first));
  pb::file_entry file = like;
  file.set_id(id);
  if (file.has_memfd())
    file.mutable_memfd()->set_id(id), file.mutable_memfd()->set_flags(access), file.mutable_memfd()->set_pos(0);
  else
    file.mutable_reg()->set_id(id), file.mutable_reg()->set_flags(access), file.mutable_reg()->set_pos(0);
  s.files[id] = std::move(file);
  if (const auto ghost = s.ghosts.find(like.id()); ghost != s.ghosts.end()) s.ghosts[id] = ghost->second;
  return id;
}

// Memfds whose seals come late get a file to set them with.
Result<void> plan_seals(Snapshot& s) {
  std::map<uint64_t, const pb::file_entry*> late;
  for (const auto& [id, file] : s.files) {
    if (!file.has_memfd()) continue;
    const auto inode = s.memfds.find(file.memfd().inode_id());
    if (inode == s.memfds.end()) return corrupt("files.img", cat("file ", id, " is a memfd that is not in memfd.img"));
    if (files::late_seals(inode->second.entry)) late[inode->first] = &file;
  }
  for (const auto& [inode, file] : late)
    s.late_seals[TRY(add_file(s, *file, O_RDWR))] = files::late_seals(s.memfds.at(inode).entry);
  return {};
}

// Every id that a task refers to is a file that can be restored.
Result<void> check_files(const Snapshot& s, const TaskImage& task) {
  auto need = [&](uint32_t id, const std::string& where, bool path, bool memfd = false) -> Result<void> {
    const auto at = s.files.find(id);
    if (at == s.files.end()) return corrupt(where, cat("file ", id, " is not in files.img"));
    if (path && !at->second.has_reg() && !(memfd && at->second.has_memfd()))
      return corrupt(where, cat("file ", id, " has no path"));
    if (path && files::of_process(at->second.reg().name()))
      return fail(Error(Code::kUnsupportedFile, cat(where, ": ", at->second.reg().name(), " belongs to a process"))
                      .about(at->second.reg().name()));
    if (!files::kind_of(at->second.type()))
      return fail(
          Error(Code::kUnsupportedFile, cat(where, ": file ", id, " is of type ", pb::fd_types_Name(at->second.type()),
                                            ", which cannot be restored yet"))
              .about(cat("file ", id)));
    return {};
  };
  for (const auto* extra : task.extras) {
    if (!extra || !extra->has_cwd_id()) continue;
    TRY(need(extra->cwd_id(), "manifest.img", true));
    TRY(need(extra->root_id(), "manifest.img", true));
  }
  std::set<uint32_t> seen;
  for (const auto& e : task.fds) {
    if (e.fd() > (1u << 20) || !seen.insert(e.fd()).second)
      return corrupt(img("fdinfo", task.ids.files_id()), cat("descriptor ", e.fd()));
    TRY(need(e.id(), img("fdinfo", task.ids.files_id()), false));
  }
  const std::string fs = img("fs", task.node.pid()), mm = img("mm", task.node.pid());
  TRY(need(task.fs.cwd_id(), fs, true));
  TRY(need(task.fs.root_id(), fs, true));
  TRY(need(task.mm.exe_file_id(), mm, true));
  for (const auto& vma : task.mm.vmas())
    if (memory::is_file_backed(vma)) TRY(need(static_cast<uint32_t>(vma.shmid()), mm, true, true));
  return {};
}

// The first task of a table has it for all.
void share_tables(Snapshot& s) {
  std::set<uint32_t> tables;
  for (auto& task : s.tasks) {
    if (task.zombie || tables.insert(task.ids.files_id()).second) continue;
    task.shares_files = true;
    task.fds.clear();
  }
}

const TaskImage& holder_of_table(const Snapshot& s, const TaskImage& task) {
  if (!task.shares_files) return task;
  return *std::ranges::find_if(
      s.tasks, [&](const auto& t) { return !t.zombie && !t.shares_files && t.ids.files_id() == task.ids.files_id(); });
}

// CRIU has one file for all mappings of an inode, and says with each of them how it has to be open: that becomes a
// file of its own, as in our images. Every id was checked.
Result<void> open_as_mapped(Snapshot& s) {
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> made;
  for (auto& task : s.tasks) {
    for (auto& vma : *task.mm.mutable_vmas()) {
      if (!memory::is_file_backed(vma) || !vma.has_fdflags()) continue;
      const auto id = static_cast<uint32_t>(vma.shmid());
      const uint32_t access = vma.fdflags() & O_ACCMODE, given = open_flags(s.files.at(id));
      if (access == O_ACCMODE) return corrupt(img("mm", task.node.pid()), cat("flags of mapping ", hex(vma.start())));
      if ((given & O_ACCMODE) == access && !(given & O_PATH)) continue;
      const auto [at, fresh] = made.try_emplace({id, access});
      if (fresh) at->second = TRY(add_file(s, s.files.at(id), access));
      vma.set_shmid(at->second);
    }
  }
  return {};
}

Result<void> check_segment(const Snapshot& s, const pb::vma_entry& vma, const std::string& name) {
  const auto at = s.segments.find(vma.shmid());
  if (at == s.segments.end()) return corrupt(name, cat("System V segment ", vma.shmid(), " is not in the images"));
  const uint64_t page = at->second.huge_page ? at->second.huge_page : image::kPageSize;
  const uint64_t size = (at->second.size + page - 1) / page * page;
  if (vma.pgoff() >= size || vma.end() - vma.start() > size - vma.pgoff())
    return corrupt(name, cat("System V segment ", vma.shmid(), " is shorter than mapping ", hex(vma.start())));
  return {};
}

// Whom files send signals to, and whom pidfds are of.
Result<void> check_owners(const Snapshot& s) {
  files::KnownIds known;
  for (const auto& task : s.tasks) {
    known.threads.insert(task.tids.begin(), task.tids.end());
    known.processes.insert(task.node.pid());
    known.groups.insert(task.node.pgid());
  }
  for (const auto& [id, file] : s.files) {
    TRY(files::check_signals_image(file, known));
    if (const uint32_t pid = file.pidfd().nspid(); pid != 0 && !known.threads.contains(pid))
      return corrupt("files.img", cat("file ", id, " is the pidfd of ", pid, ", whom the images do not have"));
  }
  return {};
}

Result<void> check_threads(const Snapshot& s) {
  std::set<uint32_t> ids;
  for (const auto& task : s.tasks) {
    for (uint32_t tid : task.node.threads())
      if (tid != task.node.pid() && !ids.insert(tid).second)
        return corrupt("pstree.img", cat("thread ", tid, " occurs twice"));
    if (!ids.insert(task.node.pid()).second)
      return corrupt("pstree.img", cat("pid ", task.node.pid(), " occurs twice"));
    for (const auto& core : task.threads)
      if (core.thread_core().seccomp_mode() == pb::filter &&
          core.thread_core().seccomp_filter() >= static_cast<uint32_t>(s.seccomp.seccomp_filters_size()))
        return corrupt("seccomp.img", cat("no filter ", core.thread_core().seccomp_filter()));
  }
  return {};
}

// Inside a user namespace there is no right to choose pids of the host, or to change its mounts.
Result<void> load_users(Snapshot& s) {
  constexpr unsigned long kNeeded = CLONE_NEWPID | CLONE_NEWNS;
  if ((s.namespaces & kNeeded) != kNeeded)
    return fail(Error(Code::kUnsupportedNamespace,
                      "the images have a user namespace, but share the pid or mount namespace of the host"));
  s.users = TRY(namespaces::load_user(*s.images, s.tasks.front().ids.user_ns_id()));
  const std::string name = img("userns", s.tasks.front().ids.user_ns_id());
  const auto& birth_groups = s.tasks.front().threads.front().thread_core().creds().groups();
  for (const auto& task : s.tasks) {
    if (task.zombie) continue;
    for (const auto& thread : task.threads) {
      const auto& c = thread.thread_core().creds();
      auto has = [](const procfs::IdMap& map, auto... ids) { return (map.outside(ids).has_value() && ...); };
      bool ok = has(s.users->uid, c.uid(), c.euid(), c.suid(), c.fsuid()) &&
                has(s.users->gid, c.gid(), c.egid(), c.sgid(), c.fsgid());
      for (const uint32_t group : c.groups()) ok = ok && has(s.users->gid, group);
      if (!ok) return corrupt(name, cat("pid ", task.node.pid(), " has ids that it does not have"));
      if (!s.users->setgroups && !std::ranges::equal(c.groups(), birth_groups))
        return corrupt(name, cat("setgroups is denied, and pid ", task.node.pid(), " has groups of its own"));
    }
  }
  return {};
}

}  // namespace

Result<Snapshot> load(const image::Reader& images) {
  Snapshot s;
  s.images = &images;
  for (auto& node : TRY(images.read_all<pb::pstree_entry>(Kind::kPstree, "pstree.img")))
    s.tasks.emplace_back().node = node;
  if (s.tasks.empty()) return corrupt("pstree.img", "no tasks");
  for (auto& task : s.tasks) TRY(load_task(images, task));
  share_tables(s);
  if (s.tasks.front().zombie) return corrupt("pstree.img", "the root task is a zombie");
  for (auto& file : TRY(images.read_all<pb::file_entry>(Kind::kFiles, "files.img"))) {
    const uint32_t id = file.id();
    s.files[id] = std::move(file);
  }
  TRY(files::check_streams(images, s.files));
  for (const auto& [id, file] : s.files) TRY(files::check_file_image(file, s.files, images));
  s.memfds = TRY(files::load_memfds(images));
  TRY(files::check_unix_sockets(s.files, images.manifest()));
  s.packets = TRY(files::load_packets(images, s.files));
  s.ghosts = TRY(files::load_ghosts(images));
  s.locks = TRY(files::load_locks(images));
  s.pipes = TRY(files::load_pipes(images, false));
  s.fifos = TRY(files::load_pipes(images, true));
  if (images.exists("tty-info.img"))
    for (auto& tty : TRY(images.read_all<pb::tty_info_entry>(Kind::kTtyInfo, "tty-info.img"))) s.ttys[tty.id()] = tty;
  TRY(files::check_ttys(s.ttys, s.files));
  if (images.exists("tty-data.img"))
    s.tty_data = TRY(images.read_all<pb::tty_data_entry>(Kind::kTtyData, "tty-data.img"));
  for (const auto& data : s.tty_data)
    if (data.data().size() > (1u << 20)) return corrupt("tty-data.img", "too much data");
  if (images.exists("seccomp.img")) {
    s.seccomp = TRY(images.read<pb::seccomp_entry>(Kind::kSeccomp, "seccomp.img"));
    TRY(check_seccomp(s.seccomp));
  }
  if (images.exists("cgroup.img")) s.cgroup = TRY(images.read<pb::cgroup_entry>(Kind::kCgroup, "cgroup.img"));
  s.namespaces = namespaces::owned_flags(s.tasks.front().ids, images.inventory().root_ids());
  const uint32_t time_id = s.namespaces & CLONE_NEWTIME ? s.tasks.front().ids.time_ns_id() : 0;
  s.clocks = TRY(namespaces::load_time(images, time_id));
  if (time_id && !s.clocks) return corrupt(img("timens", time_id), "it does not have the clocks of the time namespace");
  if (s.namespaces & CLONE_NEWUSER) TRY(load_users(s));
  s.posix_queues = TRY(namespaces::check_posix_queue_images(images, (s.namespaces & CLONE_NEWIPC) != 0));
  if (s.namespaces & CLONE_NEWIPC) s.segments = TRY(namespaces::load_segments(s.tasks.front().ids.ipc_ns_id(), images));
  for (const auto& task : s.tasks) {
    if (task.zombie) continue;
    if (namespaces::owned_flags(task.ids, s.tasks.front().ids) & ~0ul)
      return fail(
          Error(Code::kUnsupportedNamespace, cat("pid ", task.node.pid(), " of the images is in a nested namespace")));
    TRY(check_files(s, task));
    TRY(files::find_lock_files(s.locks, task.node.pid(), holder_of_table(s, task).fds));
    for (const auto& vma : task.mm.vmas()) {
      if (memory::is_shared_anonymous(vma)) TRY(memory::load_shared(images, vma, s.shared));
      if (memory::is_sysv(vma)) TRY(check_segment(s, vma, img("mm", task.node.pid())));
    }
  }
  TRY(files::check_lock_files(s.locks));
  TRY(open_as_mapped(s));
  TRY(memory::load_inherited(s));
  TRY(plan_seals(s));
  TRY(check_threads(s));
  TRY(check_owners(s));
  if (s.namespaces & CLONE_NEWNS)
    s.mounts = TRY(images.read_all<pb::mnt_entry>(Kind::kMnts, img("mountpoints", s.tasks.front().ids.mnt_ns_id())));
  return s;
}

}  // namespace stasis::tasks
