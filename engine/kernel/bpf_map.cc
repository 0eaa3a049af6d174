// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/bpf_map.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

namespace stasis::kernel {
namespace {

long bpf(bpf_cmd command, bpf_attr& attributes) {
  return ::syscall(__NR_bpf, command, &attributes, sizeof(attributes));
}

uint64_t address(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

Result<bool> program_uses(uint32_t program, uint32_t map) {
  bpf_attr attributes{};
  attributes.prog_id = program;
  const Fd fd(static_cast<int>(bpf(BPF_PROG_GET_FD_BY_ID, attributes)));
  if (!fd && errno == ENOENT) return false;  // gone meanwhile
  if (!fd) return fail_sys("bpf(BPF_PROG_GET_FD_BY_ID)");
  std::vector<uint32_t> maps;
  for (int round = 0; round < 2; ++round) {
    bpf_prog_info info{};
    info.nr_map_ids = static_cast<uint32_t>(maps.size());
    info.map_ids = address(maps.data());
    attributes = {};
    attributes.info.bpf_fd = static_cast<uint32_t>(fd.get());
    attributes.info.info_len = sizeof info;
    attributes.info.info = address(&info);
    if (bpf(BPF_OBJ_GET_INFO_BY_FD, attributes) < 0) return fail_sys("bpf(BPF_OBJ_GET_INFO_BY_FD)");
    if (round == 0) maps.resize(info.nr_map_ids);
  }
  return std::ranges::find(maps, map) != maps.end();
}

}  // namespace

Result<BpfMap> bpf_map_info(int fd) {
  struct bpf_map_info info {};
  bpf_attr attributes{};
  attributes.info.bpf_fd = static_cast<uint32_t>(fd);
  attributes.info.info_len = sizeof info;
  attributes.info.info = address(&info);
  if (bpf(BPF_OBJ_GET_INFO_BY_FD, attributes) < 0) return fail_sys("bpf(BPF_OBJ_GET_INFO_BY_FD)");
  BpfMap out{info.id, info.type, info.key_size, info.value_size, info.max_entries, info.map_flags, info.map_extra, {}};
  out.name.assign(info.name, ::strnlen(info.name, sizeof info.name));
  out.typed = info.btf_id || info.btf_vmlinux_value_type_id || info.ifindex;
  return out;
}

Result<bool> bpf_map_in_use(uint32_t id) {
  bpf_attr attributes{};
  for (uint32_t program = 0;;) {
    attributes = {};
    attributes.start_id = program;
    if (bpf(BPF_PROG_GET_NEXT_ID, attributes) < 0) {
      if (errno == ENOENT) return false;
      return fail_sys("bpf(BPF_PROG_GET_NEXT_ID)");
    }
    program = attributes.next_id;
    if (TRY(program_uses(program, id))) return true;
  }
}

Result<BpfMapContents> read_bpf_map(int fd, const BpfMap& map) {
  BpfMapContents out;
  std::string key(map.key_size, '\0'), next(map.key_size, '\0'), value(map.value_size, '\0');
  for (bool first = true; out.count < map.max_entries; first = false) {
    bpf_attr attributes{};
    attributes.map_fd = static_cast<uint32_t>(fd);
    attributes.key = first ? 0 : address(key.data());
    attributes.next_key = address(next.data());
    if (bpf(BPF_MAP_GET_NEXT_KEY, attributes) < 0) {
      if (errno == ENOENT) break;
      return fail_sys("bpf(BPF_MAP_GET_NEXT_KEY)");
    }
    key = next;
    attributes = {};
    attributes.map_fd = static_cast<uint32_t>(fd);
    attributes.key = address(key.data());
    attributes.value = address(value.data());
    if (bpf(BPF_MAP_LOOKUP_ELEM, attributes) < 0) return fail_sys("bpf(BPF_MAP_LOOKUP_ELEM)");
    out.keys += key, out.values += value, ++out.count;
  }
  return out;
}

Result<Fd> create_bpf_map(const BpfMap& map) {
  bpf_attr attributes{};
  attributes.map_type = map.type;
  attributes.key_size = map.key_size, attributes.value_size = map.value_size;
  attributes.max_entries = map.max_entries, attributes.map_flags = map.flags, attributes.map_extra = map.extra;
  map.name.copy(attributes.map_name, sizeof attributes.map_name - 1);
  Fd fd(static_cast<int>(bpf(BPF_MAP_CREATE, attributes)));
  if (!fd) return fail_sys("bpf(BPF_MAP_CREATE)", map.name);
  return fd;
}

Result<void> fill_bpf_map(int fd, const BpfMap& map, const BpfMapContents& contents) {
  for (uint32_t i = 0; i < contents.count; ++i) {
    bpf_attr attributes{};
    attributes.map_fd = static_cast<uint32_t>(fd);
    attributes.key = address(contents.keys.data() + size_t{i} * map.key_size);
    attributes.value = address(contents.values.data() + size_t{i} * map.value_size);
    if (bpf(BPF_MAP_UPDATE_ELEM, attributes) < 0) return fail_sys("bpf(BPF_MAP_UPDATE_ELEM)", map.name);
  }
  return {};
}

Result<void> freeze_bpf_map(int fd) {
  bpf_attr attributes{};
  attributes.map_fd = static_cast<uint32_t>(fd);
  if (bpf(BPF_MAP_FREEZE, attributes) < 0) return fail_sys("bpf(BPF_MAP_FREEZE)");
  return {};
}

Result<Fd> open_bpf_map(uint32_t id, int access) {
  bpf_attr attributes{};
  attributes.map_id = id;
  attributes.open_flags = access == O_RDONLY ? BPF_F_RDONLY : access == O_WRONLY ? BPF_F_WRONLY : 0;
  Fd fd(static_cast<int>(bpf(BPF_MAP_GET_FD_BY_ID, attributes)));
  if (!fd) return fail_sys("bpf(BPF_MAP_GET_FD_BY_ID)");
  return fd;
}

}  // namespace stasis::kernel
