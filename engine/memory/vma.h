// SPDX-License-Identifier: Apache-2.0
// Kinds of memory mappings: what a line of /proc/PID/smaps means for the image, and how
// a vma_entry is mapped again. Status bits are CRIU's VMA_AREA_* (crit shows them).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/procfs/procfs.h"
#include "proto/manifest.pb.h"
#include "proto/mm.pb.h"

namespace stasis::memory {

constexpr uint32_t kVmaRegular = 1 << 0, kVmaStack = 1 << 1, kVmaVsyscall = 1 << 2, kVmaVdso = 1 << 3,
                   kVmaHeap = 1 << 5, kVmaFilePrivate = 1 << 6, kVmaFileShared = 1 << 7, kVmaAnonShared = 1 << 8,
                   kVmaAnonPrivate = 1 << 9, kVmaSysvipc = 1 << 10, kVmaSocket = 1 << 11, kVmaVvar = 1 << 12,
                   kVmaAioring = 1 << 13, kVmaMemfd = 1 << 14;

constexpr uint32_t kMapDroppable = 0x08;  // MAP_DROPPABLE (6.11), instead of MAP_PRIVATE

// One mapping as it goes to the image. `file_backed`: shmid has to become a file id.
struct Vma {
  pb::vma_entry entry;
  bool file_backed = false;
  bool readable = true;        // false: contents only through /proc/PID/mem
  bool has_contents = false;   // private, or vDSO: pages are looked for
  bool shared_object = false;  // shmid has to become the number of a shared object
  procfs::Map map;
};

// What tells the kernel's own files from those of a container that have the same names.
struct MapContext {
  uint32_t shmem_major = 0, shmem_minor = 0;  // device of the kernel's own shmem mount
  bool own_ipc = false;                       // the container has an ipc namespace for itself
};
Result<MapContext> map_context(const procfs::Procfs& proc, bool own_ipc);

// The mappings of a task. Errors, one per mapping of a kind that cannot be carried over,
// go to `obstacles`. [vsyscall] is not a mapping of the task and is left out.
std::vector<Vma> classify(const MapContext& context, const std::vector<procfs::Map>& maps, pid_t pid,
                          std::vector<Error>& obstacles);

// What of a mapping goes to the manifest, if there is anything.
void add_extras(const Vma& vma, pb::memory_extra& extra);
// That it is about these mappings.
Result<void> check_extra(const pb::mm_entry& mm, const pb::memory_extra& extra);

// Checks of a vma_entry from an image: page-aligned, in user space, ordered, known bits.
Result<void> check_vmas(const pb::mm_entry& mm, const std::string& image_name);

// mmap(2) arguments of an entry: protection while it is filled, and flags without MAP_FIXED.
// A mapping without contents is given its own protection at once: making it writable would
// charge it (VM_ACCOUNT), and the kernel would merge what it kept apart before.
int fill_protection(const pb::vma_entry& entry, bool has_pages);
bool is_file_backed(const pb::vma_entry& entry);
bool is_vdso_group(const pb::vma_entry& entry);  // [vdso] and every [vvar*]
bool is_shared_anonymous(const pb::vma_entry& entry);
bool is_sysv(const pb::vma_entry& entry);

// The lowest 2 MiB-aligned address range of `size` bytes that no mapping of `taken` covers.
// From 4 GiB on, or below for what 32-bit code has to point to.
std::optional<uint64_t> find_hole(std::vector<std::pair<uint64_t, uint64_t>> taken, uint64_t size,
                                  bool for_32_bits = false);

constexpr uint64_t kTaskSize = 0x7ffffffff000;  // arch/x86: TASK_SIZE_MAX, 4-level paging

}  // namespace stasis::memory
