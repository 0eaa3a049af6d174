// SPDX-License-Identifier: Apache-2.0
// vdso(7): code and data that the kernel maps into every task. A task has the addresses of its functions in its memory,
// and they are those of the kernel it ran on. If this kernel's vDSO is the same to the byte, it is mapped at the old
// place. If not, the old code stays as ordinary memory, each of its functions that needs the kernel's data jumps to
// this kernel's, which is mapped elsewhere, or makes the system call.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/result.h"
#include "engine/memory/runs.h"
#include "engine/procfs/procfs.h"
#include "engine/tasks/snapshot.h"

namespace stasis::memory {

// Functions of an ELF image by name, as offsets. Nothing of the image is trusted.
Result<std::map<std::string, uint64_t>> vdso_functions(std::span<const uint8_t> image);

struct OwnVdso {
  std::vector<std::pair<uint64_t, uint64_t>> parts;  // of [vvar*] and [vdso]: offset from the first, size
  uint64_t size = 0;                                 // of all
  uint64_t text_offset = 0;                          // of [vdso] in it
  std::span<const uint8_t> text;                     // in our own memory
};
// What 32-bit code gets from ARCH_MAP_VDSO_32: seen in a short-lived child, for the engine has another. `text` is its
// code. KERNEL-FEATURE if this kernel runs no 32-bit code.
Result<OwnVdso> ia32_vdso(const procfs::Procfs& proc, std::vector<uint8_t>& text);
// Of this process, which is what a stub gets from ARCH_MAP_VDSO_64. Without one: no parts.
Result<OwnVdso> own_vdso(const procfs::Procfs& proc);

struct VdsoPlan {
  uint64_t at = 0;        // where the kernel's goes; 0: the task has none
  bool ia32 = false;      // that of 32-bit code
  bool redirect = false;  // the task's own is memory like any other, with these patches
  std::vector<std::pair<uint64_t, std::vector<uint8_t>>> patches;  // address, code
};
// `taken`: where it cannot go, besides the task's mappings. Of 32-bit code (`own` too) only the same can be restored.
Result<VdsoPlan> plan_vdso(const tasks::Snapshot& s, const tasks::TaskImage& task, const OwnVdso& own,
                           const Run& taken);

}  // namespace stasis::memory
