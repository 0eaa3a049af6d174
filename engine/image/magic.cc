// SPDX-License-Identifier: Apache-2.0
#include "engine/image/magic.h"

#include <array>

#include "engine/base/strings.h"
#include "proto/cgroup.pb.h"
#include "proto/core.pb.h"
#include "proto/cpuinfo.pb.h"
#include "proto/events.pb.h"
#include "proto/files.pb.h"
#include "proto/inventory.pb.h"
#include "proto/manifest.pb.h"
#include "proto/mm.pb.h"
#include "proto/mounts.pb.h"
#include "proto/mqueue.pb.h"
#include "proto/namespaces.pb.h"
#include "proto/net.pb.h"
#include "proto/sockets.pb.h"
#include "proto/stats.pb.h"
#include "proto/task.pb.h"
#include "proto/tty.pb.h"

namespace stasis::image {
namespace {

template <class T>
const google::protobuf::Message* prototype() {
  return &T::default_instance();
}

constexpr KindInfo kKinds[] = {
#define STASIS_IMAGE(kind, crit, magic, head, file, message, payload) \
  {Kind::kind, crit, magic, Head::head, file, prototype<pb::message>, Payload::payload},
#include "engine/image/kinds.def"
#undef STASIS_IMAGE
};

void append_u32(std::string& out, uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(value >> shift & 0xff);
}

}  // namespace

std::span<const KindInfo> all_kinds() { return kKinds; }

const KindInfo& kind_info(Kind kind) { return kKinds[static_cast<size_t>(kind)]; }

const KindInfo* find_magic(uint32_t magic) {
  for (const auto& info : kKinds)
    if (info.magic == magic) return &info;
  return nullptr;
}

std::string file_name(Kind kind) { return std::string(kind_info(kind).file_pattern); }

std::string file_name(Kind kind, uint64_t id) {
  std::string name(kind_info(kind).file_pattern);
  if (const auto at = name.find("%u"); at != std::string::npos) return name.replace(at, 2, std::to_string(id));
  if (const auto at = name.find("%x"); at != std::string::npos) return name.replace(at, 2, hex(id).substr(2));
  return name;
}

std::string pages_name(uint64_t pages_id) { return cat("pages-", pages_id, ".img"); }
std::string shmem_pagemap_name(uint64_t shmid) { return cat("pagemap-shmem-", shmid, ".img"); }
std::string tmpfs_name(uint64_t mnt_id) { return cat("tmpfs-", mnt_id, ".tar.gz.img"); }

bool valid_file_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name.front() != '.' &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

std::string head_bytes(const KindInfo& info) {
  std::string out;
  if (info.head != Head::kNone) append_u32(out, info.head == Head::kService ? kServiceMagic : kCommonMagic);
  append_u32(out, info.magic);
  return out;
}

}  // namespace stasis::image
