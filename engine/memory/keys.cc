// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/keys.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "engine/kernel/ptrace.h"
#include "engine/kernel/syscalls.h"
#include "engine/tasks/fpu.h"

namespace stasis::memory {
namespace {

constexpr uint32_t kKeys = 16;
constexpr size_t kBatchCalls = 512;

std::map<uint64_t, uint32_t> by_mapping(const pb::memory_extra& extra) {
  std::map<uint64_t, uint32_t> out;
  for (const auto& vma : extra.vmas())
    if (vma.protection_key()) out[vma.start()] = vma.protection_key();
  return out;
}

bool given_out(const pb::memory_extra& extra, uint32_t key) { return extra.allocated_keys() >> key & 1; }

// The kernel's own key; 0: none.
uint32_t own_key(const pb::mm_entry& mm, const pb::memory_extra& extra) {
  const auto keys = by_mapping(extra);
  for (const auto& e : mm.vmas())
    if (const auto at = keys.find(e.start());
        at != keys.end() && e.prot() == PROT_EXEC && !given_out(extra, at->second))
      return at->second;
  return 0;
}

}  // namespace

Result<void> check_key_zero(const tasks::Process& process) {
  if (!tasks::has_protection_keys()) return {};
  for (const auto& t : process.threads) {
    if (t.exited) continue;
    const auto rights = tasks::key_rights(TRY(kernel::get_xstate(t.tid)));
    if (rights.value_or(0) & 3)
      return fail(Error(Code::kUnsupportedMemory,
                        cat("thread ", t.tid, " of pid ", process.pid, " (", process.stat.comm,
                            ") denies itself memory with the protection key 0, which all ordinary memory has"))
                      .about(cat("pid ", process.pid)));
  }
  return {};
}

Result<void> dump_keys(remote::Runner& runner, const std::vector<Vma>& vmas, pb::memory_extra& extra) {
  if (vmas.empty() || !vmas.front().map.protection_key) return {};
  // Where nothing is mapped, pkey_mprotect(2) of a key that was given out says ENOMEM, of any other EINVAL.
  constexpr uint64_t kPage = kernel::kPageSize;
  const std::string name = cat("pid ", runner.pid());
  if (vmas.front().entry.start() < 2 * kPage)
    return fail(Error(Code::kUnsupportedMemory, "protection keys cannot be asked for: the lowest pages are mapped")
                    .about(name));
  remote::Batch batch;
  for (uint32_t key = 1; key < kKeys; ++key) batch.add(__NR_pkey_mprotect, kPage, kPage, PROT_NONE, key);
  TRY(runner.run(batch));
  uint32_t allocated = 0;
  for (uint32_t key = 1; key < kKeys; ++key)
    if (batch.result(key - 1) == -ENOMEM) allocated |= 1u << key;
  if (allocated) extra.set_allocated_keys(allocated);
  uint32_t own = 0;
  for (const auto& vma : vmas) {
    const uint32_t key = vma.map.protection_key.value_or(0);
    if (key == 0 || vma.entry.prot() != PROT_EXEC || given_out(extra, key)) continue;
    if (own != 0 && own != key)
      return fail(Error(Code::kUnsupportedMemory, cat(name, " has memory to be executed only with the keys ", own,
                                                      " and ", key, ", of which none is given out"))
                      .about(name));
    own = key;
  }
  for (const auto& vma : vmas)
    if (own != 0 && vma.map.protection_key == own && vma.entry.prot() != PROT_EXEC)
      return fail(Error(Code::kUnsupportedMemory,
                        cat(name, " has memory with the protection key ", own,
                            ", which was freed and is the kernel's own for what can only be executed now"))
                      .about(name));
  return {};
}

Result<void> check_keys(const pb::mm_entry& mm, const pb::memory_extra& extra) {
  auto bad = [&](const char* why) {
    return fail(
        Error(Code::kImageCorrupt, cat("manifest: memory of pid ", extra.pid(), " has ", why)).about("manifest"));
  };
  if (extra.allocated_keys() & ~0xfffeu) return bad("protection keys that do not exist");
  const auto keys = by_mapping(extra);
  for (const auto& [start, key] : keys)
    if (key >= kKeys) return bad("a protection key that does not exist");
  const uint32_t own = own_key(mm, extra);
  for (const auto& e : mm.vmas()) {
    const auto at = keys.find(e.start());
    if (at == keys.end()) continue;
    if (is_vdso_group(e) || (e.status() & kVmaVsyscall)) return bad("a protection key for the kernel's own mapping");
    const bool kernels = e.prot() == PROT_EXEC && !given_out(extra, at->second);
    if (own != 0 && (at->second == own) != kernels) return bad("protection keys that the kernel never gives");
  }
  return {};
}

bool has_keys(const tasks::TaskImage& task) {
  return task.memory && (task.memory->allocated_keys() || !by_mapping(*task.memory).empty());
}

Result<void> check_keys_can_be_had(const tasks::Snapshot& snapshot) {
  if (tasks::has_protection_keys()) return {};
  for (const auto& task : snapshot.tasks) {
    if (!has_keys(task)) continue;
    // The kernel's own key is an extra: without it such memory can be read, as it always could on this processor.
    const auto keys = by_mapping(*task.memory);
    const uint32_t own = own_key(task.mm, *task.memory);
    const bool others = std::ranges::any_of(keys, [&](const auto& k) { return k.second != own; });
    if (!others && !task.memory->allocated_keys()) continue;
    const std::string name = cat("pid ", task.node.pid(), " of the images");
    return fail(Error(Code::kKernelFeature, cat(name,
                                                " has memory protection keys (pkeys(7)), which this processor or "
                                                "kernel has not"))
                    .about(name));
  }
  return {};
}

Result<void> take_keys(remote::Runner& runner, const tasks::TaskImage& task) {
  if (!has_keys(task) || !tasks::has_protection_keys()) return {};
  remote::Batch batch;
  for (uint32_t key = 1; key < kKeys; ++key) {
    batch.add(__NR_pkey_alloc, 0, 0);
    batch.must(cat("pkey_alloc of key ", key));
  }
  if (const uint32_t own = own_key(task.mm, *task.memory)) {
    batch.add(__NR_pkey_free, own);
    batch.must(cat("pkey_free of key ", own));
  }
  TRY(runner.run_checked(batch));
  for (uint32_t key = 1; key < kKeys; ++key)
    if (batch.result(key - 1) != key) return fail(Code::kInternal, cat("protection key ", key, " was not free"));
  return {};
}

Result<void> give_keys(remote::Runner& runner, const tasks::TaskImage& task) {
  if (!has_keys(task) || !tasks::has_protection_keys()) return {};
  const auto keys = by_mapping(*task.memory);
  const uint32_t own = own_key(task.mm, *task.memory);
  remote::Batch batch;
  for (const auto& e : task.mm.vmas()) {
    const auto at = keys.find(e.start());
    const uint32_t key = at == keys.end() ? 0 : at->second;
    // What can only be executed and has key 0 must not have the kernel's.
    const bool kernels = e.prot() == PROT_EXEC && key == own;
    if ((key == 0 && e.prot() != PROT_EXEC) || (kernels && own) || is_vdso_group(e) || (e.status() & kVmaVsyscall))
      continue;
    batch.add(__NR_pkey_mprotect, e.start(), e.end() - e.start(), e.prot(), key);
    batch.must(cat("pkey_mprotect ", hex(e.start())));
    if (batch.size() < kBatchCalls) continue;
    TRY(runner.run_checked(batch));
    batch = remote::Batch();
  }
  for (uint32_t key = 1; key < kKeys; ++key)
    if (key != own && !given_out(*task.memory, key)) {
      batch.add(__NR_pkey_free, key);
      batch.must(cat("pkey_free of key ", key));
    }
  return runner.run_checked(batch);
}

}  // namespace stasis::memory
