// SPDX-License-Identifier: Apache-2.0
// The kinds of image files: magic numbers, file names, messages (table: kinds.def).
// An image is a head (one or two u32 LE), then records: u32 LE length, protobuf,
// and for some kinds a payload that is not protobuf.
#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace stasis::image {

enum class Kind {
#define STASIS_IMAGE(kind, crit, magic, head, file, message, payload) kind,
#include "engine/image/kinds.def"
#undef STASIS_IMAGE
};

// What stands in front of the magic: the inventory has nothing, statistics the service number.
enum class Head { kNone, kCommon, kService };
inline constexpr uint32_t kCommonMagic = 0x54564319;
inline constexpr uint32_t kServiceMagic = 0x55105940;

enum class Payload { kNone, kPipe, kGhost, kBpfMap, kPacket, kTcp, kShm, kMsgQueue, kSem };

inline constexpr uint32_t kImageVersion = 2;  // inventory_entry.img_version ("1.1")
// A task's pages may be in its parent's pages file (manifest, inherited_pages). CRIU does not know that: it must
// refuse.
inline constexpr uint32_t kSharedImageVersion = 1000;
inline constexpr uint32_t kMaxRecord = 64u << 20;  // bytes of one record; more is damage
inline constexpr std::string_view kInventoryName = "inventory.img";
inline constexpr std::string_view kManifestName = "stasis-manifest.img";

struct KindInfo {
  Kind kind;
  std::string_view crit_name;  // "CORE", as crit(1) prints it
  uint32_t magic;
  Head head;
  std::string_view file_pattern;  // "core-%u.img"
  const google::protobuf::Message* (*prototype)();
  Payload payload;
};

std::span<const KindInfo> all_kinds();
const KindInfo& kind_info(Kind kind);
// nullptr: no such kind.
const KindInfo* find_magic(uint32_t magic);

// "pstree.img"; for a kind without an id.
std::string file_name(Kind kind);
// "core-12.img"; for a kind with one.
std::string file_name(Kind kind, uint64_t id);
std::string pages_name(uint64_t pages_id);       // "pages-1.img", no magic
std::string shmem_pagemap_name(uint64_t shmid);  // "pagemap-shmem-12.img", Kind::kPagemap
std::string tmpfs_name(uint64_t mnt_id);         // "tmpfs-12.tar.gz.img", no magic

// A name that may stand in an image directory: no "/", no leading ".", at most 255 bytes.
bool valid_file_name(std::string_view name);

// The 4 or 8 bytes a file of this kind begins with.
std::string head_bytes(const KindInfo& info);

}  // namespace stasis::image
