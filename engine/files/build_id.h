// SPDX-License-Identifier: Apache-2.0
// What a linker has written into an ELF file to tell one build from another, elf(5) NT_GNU_BUILD_ID.
#pragma once

#include <cstdint>
#include <vector>

namespace stasis::files {

// In words, as the images have it; empty if there is none. Reads without moving the position.
std::vector<uint32_t> build_id_of(int fd);

}  // namespace stasis::files
