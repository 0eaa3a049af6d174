// SPDX-License-Identifier: Apache-2.0
// bpf(2) maps of plain data.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::kernel {

struct BpfMap {
  uint32_t id = 0, type = 0, key_size = 0, value_size = 0, max_entries = 0, flags = 0;
  uint64_t extra = 0;
  std::string name;
  bool typed = false;  // it refers to BTF, or to a device
};

Result<BpfMap> bpf_map_info(int fd);
// Is there a loaded program that uses it?
Result<bool> bpf_map_in_use(uint32_t id);
struct BpfMapContents {
  uint32_t count = 0;
  std::string keys, values;
};
Result<BpfMapContents> read_bpf_map(int fd, const BpfMap& map);
Result<Fd> create_bpf_map(const BpfMap& map);
// `contents`: as many keys and values as it counts.
Result<void> fill_bpf_map(int fd, const BpfMap& map, const BpfMapContents& contents);
Result<void> freeze_bpf_map(int fd);
// Another open file of it; `access`: O_RDONLY, O_WRONLY, O_RDWR.
Result<Fd> open_bpf_map(uint32_t id, int access);

}  // namespace stasis::kernel
