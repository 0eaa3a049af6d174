// SPDX-License-Identifier: Apache-2.0
// What engine and stubs have in common: memory, numbers of descriptors, where files come from.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "engine/kernel/syscalls.h"
#include "engine/kernel/x86_64/runner.h"
#include "engine/memory/shared.h"
#include "engine/tasks/sharing.h"
#include "engine/tasks/stub.h"

namespace stasis::tasks {
namespace {

constexpr size_t kCodeSize = kernel::kPageSize;

size_t slots_size(size_t nodes) {
  return (nodes * sizeof(SharedArena::Slot) + kernel::kPageSize - 1) & ~size_t{kernel::kPageSize - 1};
}

}  // namespace

uint64_t SharedArena::size_for(size_t nodes) { return kCodeSize + slots_size(nodes) + nodes * kArenaSize; }

Result<SharedArena> SharedArena::map(uint64_t hole, size_t nodes, int fd) {
  const size_t size = size_for(nodes);
  const int flags = MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE | (fd < 0 ? MAP_ANONYMOUS : 0);
  void* at = ::mmap(reinterpret_cast<void*>(hole), size, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (at == MAP_FAILED) return fail_sys("mmap of the shared arena", hex(hole));
  return SharedArena(hole, size);
}

Result<SharedArena> SharedArena::create(uint64_t hole, size_t nodes, bool by_file) {
  Fd file;
  if (by_file) {
    file = Fd(::memfd_create("stasis", MFD_CLOEXEC));
    if (!file || ::ftruncate(file.get(), static_cast<off_t>(size_for(nodes))) < 0) return fail_sys("memfd_create");
  }
  SharedArena shared = TRY(map(hole, nodes, file.get()));
  shared.file_ = std::move(file);
  void* at = reinterpret_cast<void*>(hole);
  const auto code = kernel::runner_code();
  std::memcpy(at, code.data(), code.size());
  if (::mprotect(at, kCodeSize, PROT_READ | PROT_EXEC) < 0) return fail_sys("mprotect of the runner");
  return shared;
}

Result<SharedArena> SharedArena::attach(int file, uint64_t hole, size_t nodes) {
  SharedArena shared = TRY(map(hole, nodes, file));
  if (::mprotect(reinterpret_cast<void*>(hole), kCodeSize, PROT_READ | PROT_EXEC) < 0)
    return fail_sys("mprotect of the runner");
  return shared;
}

SharedArena::SharedArena(SharedArena&& other) noexcept
    : base_(std::exchange(other.base_, 0)), size_(other.size_), file_(std::move(other.file_)) {}
SharedArena::~SharedArena() {
  if (base_) ::munmap(reinterpret_cast<void*>(base_), size_);
}
SharedArena::Slot& SharedArena::slot(size_t node) const { return reinterpret_cast<Slot*>(base_ + kCodeSize)[node]; }
uint64_t SharedArena::arena(size_t node) const { return base_ + size_ - (node + 1) * kArenaSize; }

Pool make_pool(const Snapshot& s, int base, int max_masters) {
  Pool pool;
  pool.base = base;
  int next = base;
  for (const auto& [id, file] : s.files) pool.file[id] = next++;
  for (const auto& task : s.tasks) {
    if (task.zombie) continue;
    if (pool.pages.try_emplace(static_cast<uint32_t>(task.pagemap.pages_id), next).second) ++next;
  }
  for (const auto& [id, object] : s.shared) pool.shared[id] = next++;
  pool.masters = next, pool.max_masters = max_masters;
  pool.proc = next + max_masters, pool.end = pool.proc + 1;
  return pool;
}

Result<TreePlan> plan_tree(const Snapshot& s, bool outer_session) {
  std::vector<Kinship> kinship;
  for (const auto& t : s.tasks) kinship.push_back(t.zombie ? Kinship{} : Kinship{t.ids.files_id(), t.ids.fs_id()});
  std::vector<TreeInput> input;
  for (const auto& t : s.tasks) input.push_back({t.node.pid(), t.node.ppid(), t.node.pgid(), t.node.sid()});
  auto plan = TRY(plan_tree(input, outer_session));
  TRY(plan_sharing(plan, kinship));
  return plan;
}

files::RestoreEnv files_env(const Snapshot& s, const Options& options, const Pool& pool, int proc) {
  files::RestoreEnv env{.options = options,
                        .files = s.files,
                        .numbers = pool.file,
                        .pipes = s.pipes,
                        .ttys = s.ttys,
                        .manifest = s.images->manifest()};
  for (const auto& task : s.tasks)
    if (!task.zombie && !task.shares_files) env.tables.push_back({task.node.pid(), &task.fds});
  env.tty_data = s.tty_data;
  env.images = s.images, env.proc = proc, env.memfds = &s.memfds, env.ghosts = &s.ghosts;
  env.locks = &s.locks, env.fifos = &s.fifos, env.packets = &s.packets;
  return env;
}

void give_files(StubEnv& env, files::RestoreEnv& files) {
  env.open_file = [&files](const pb::file_entry& file) -> Result<Fd> {
    const auto* kind = files::kind_of(file.type());
    if (!kind) return fail(Code::kUnsupportedFile, cat("file ", file.id(), " of files.img"));
    return kind->restore(file, files);
  };
  env.connect_files = [&files] { return files::connect(files); };
  env.files_in_task = [&files](const TaskImage& t) { return files::in_task(t.node.pid(), t.fds, files); };
}

}  // namespace stasis::tasks
