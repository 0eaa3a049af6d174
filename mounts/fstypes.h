// SPDX-License-Identifier: Apache-2.0
// What is known about each file system type that can stand in a container's mount tree,
// and the translation between mountinfo's option words and MS_* bits (mount(2)).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stasis::mounts {

enum class FsClass {
  kForeign,   // on a device, the network or other mounts: only as the root, a bind of it, or external
  kKernel,    // the kernel fills it, from our namespaces: mounting it anew gives the same content
  kContent,   // an instance of its own with files in it: tmpfs
  kInstance,  // an instance of its own that other code refills: devpts
  kEmpty,     // only supported without files in it: mqueue, hugetlbfs
  kCgroup,    // shows the part of a hierarchy below the cgroup namespace's root
};

// pb::fstype numbers of the image.
constexpr uint32_t kFsUnsupported = 0, kFsDevtmpfs = 3, kFsTmpfs = 5, kFsCgroup = 12, kFsAuto = 16, kFsCgroup2 = 23;

struct FsType {
  std::string_view name;
  uint32_t code;
  FsClass cls;
};

// nullptr: not known.
const FsType* find_fstype(std::string_view name);
const FsType* find_fstype(uint32_t code);
// File systems that have no number of their own and are taken only if --enable-fs names them.
const FsType* find_auto_fstype(std::string_view name, const std::vector<std::string>& enabled);

// Words of a mount ("ro,nosuid,relatime") to MS_* bits; neither relatime nor noatime: MS_STRICTATIME.
// Unknown words are added to *unknown.
uint32_t mount_flags(std::string_view words, std::vector<std::string>* unknown = nullptr);
// Words of a superblock: those that are MS_* bits, and the rest joined again by commas.
struct SuperOptions {
  uint32_t flags = 0;
  std::string data;
};
SuperOptions super_options(std::string_view words);
// "ro,nosuid" for messages.
std::string flag_words(uint32_t flags);

// The bits of mount_flags().
uint32_t per_mount_mask();
// MS_* per-mount bits as MOUNT_ATTR_* of mount_setattr(2), the time bits included.
uint64_t mount_attrs(uint32_t flags);

}  // namespace stasis::mounts
