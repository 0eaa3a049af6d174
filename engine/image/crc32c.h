// SPDX-License-Identifier: Apache-2.0
// CRC-32C (Castagnoli), RFC 3720 appendix B.4; the SSE4.2 instruction where there is one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stasis::image {

// `crc` is the value of what came before, 0 at the start.
uint32_t crc32c(uint32_t crc, const void* data, size_t size);
// The same by table; for processors without the instruction, and for the test that compares.
uint32_t crc32c_portable(uint32_t crc, const void* data, size_t size);

}  // namespace stasis::image
