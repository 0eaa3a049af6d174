// SPDX-License-Identifier: Apache-2.0
// The address space of a stub becomes that of the task: everything of the engine is unmapped,
// then the vDSO, the mappings and their pages come in, driven from outside in batches.
#pragma once

#include <cstdint>

#include "engine/base/result.h"
#include "engine/remote/runner.h"
#include "engine/tasks/snapshot.h"
#include "engine/tasks/stub.h"

namespace stasis::memory {

struct VdsoLayout {
  uint64_t size = 0;                                 // of [vvar*] and [vdso] together
  std::vector<std::pair<uint64_t, uint64_t>> parts;  // offset, size of each mapping
  uint64_t text_offset = 0, text_size = 0;           // of [vdso]
};
// Of this process, which is what a stub gets from ARCH_MAP_VDSO_64.
Result<VdsoLayout> own_vdso(const procfs::Procfs& proc);
// The vDSO of the images is that of this kernel, to the byte: calls into it must land right.
Result<void> check_vdso(const tasks::TaskImage& task, const VdsoLayout& own, uint64_t own_start, int pages_fd);
Result<uint64_t> own_vdso_start(const procfs::Procfs& proc);

// Huge pages for everything in the images that has them reserved are free on this host.
Result<void> check_huge_pages(const tasks::Snapshot& snapshot);

// Unmaps everything but [keep_begin, keep_end).
Result<void> clear(remote::Runner& runner, uint64_t keep_begin, uint64_t keep_end);
// Maps, reads, protects, advises, and tells the kernel the rest (PR_SET_MM_MAP). Returns pages read.
using Segments = std::map<uint64_t, namespaces::Segment>;
Result<uint64_t> rebuild(remote::Runner& runner, const tasks::TaskImage& task, const tasks::Pool& pool,
                         const Segments& segments);

}  // namespace stasis::memory
