// SPDX-License-Identifier: Apache-2.0
#include "mounts/fstypes.h"

#include <sys/mount.h>

#include <algorithm>
#include <array>

#include "engine/base/strings.h"

namespace stasis::mounts {
namespace {

constexpr std::array<FsType, 19> kTypes{{
    {"proc", 1, FsClass::kKernel},
    {"sysfs", 2, FsClass::kKernel},
    {"devtmpfs", kFsDevtmpfs, FsClass::kKernel},
    {"binfmt_misc", 4, FsClass::kKernel},
    {"tmpfs", kFsTmpfs, FsClass::kContent},
    {"devpts", 6, FsClass::kInstance},
    {"simfs", 7, FsClass::kForeign},
    {"pstore", 8, FsClass::kKernel},
    {"securityfs", 9, FsClass::kKernel},
    {"fusectl", 10, FsClass::kKernel},
    {"debugfs", 11, FsClass::kKernel},
    {"cgroup", kFsCgroup, FsClass::kCgroup},
    {"aufs", 13, FsClass::kForeign},
    {"mqueue", 14, FsClass::kEmpty},
    {"fuse", 15, FsClass::kForeign},
    {"overlay", 17, FsClass::kForeign},
    {"autofs", 18, FsClass::kForeign},
    {"tracefs", 19, FsClass::kKernel},
    {"cgroup2", kFsCgroup2, FsClass::kCgroup},
}};

// Only file systems without a device or a server behind them: an image must not be able to make
// the engine mount a host disk or call out to the network.
constexpr std::array<FsType, 6> kAutoTypes{{
    {"hugetlbfs", kFsAuto, FsClass::kEmpty},
    {"configfs", kFsAuto, FsClass::kKernel},
    {"efivarfs", kFsAuto, FsClass::kKernel},
    {"selinuxfs", kFsAuto, FsClass::kKernel},
    {"smackfs", kFsAuto, FsClass::kKernel},
    {"resctrl", kFsAuto, FsClass::kKernel},
}};

struct Word {
  std::string_view name;
  uint32_t bit;
  uint64_t attr;
};
constexpr std::array<Word, 8> kMountWords{{
    {"ro", MS_RDONLY, MOUNT_ATTR_RDONLY},
    {"nosuid", MS_NOSUID, MOUNT_ATTR_NOSUID},
    {"nodev", MS_NODEV, MOUNT_ATTR_NODEV},
    {"noexec", MS_NOEXEC, MOUNT_ATTR_NOEXEC},
    {"noatime", MS_NOATIME, MOUNT_ATTR_NOATIME},
    {"nodiratime", MS_NODIRATIME, MOUNT_ATTR_NODIRATIME},
    {"relatime", MS_RELATIME, MOUNT_ATTR_RELATIME},
    {"nosymfollow", MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW},
}};
constexpr std::array<Word, 5> kSuperWords{{
    {"ro", MS_RDONLY, 0},
    {"sync", MS_SYNCHRONOUS, 0},
    {"dirsync", MS_DIRSYNC, 0},
    {"mand", MS_MANDLOCK, 0},
    {"lazytime", MS_LAZYTIME, 0},
}};

}  // namespace

const FsType* find_fstype(std::string_view name) {
  auto it = std::ranges::find(kTypes, name, &FsType::name);
  return it == kTypes.end() ? nullptr : &*it;
}

const FsType* find_fstype(uint32_t code) {
  auto it = std::ranges::find(kTypes, code, &FsType::code);
  return it == kTypes.end() ? nullptr : &*it;
}

const FsType* find_auto_fstype(std::string_view name, const std::vector<std::string>& enabled) {
  auto names = [&](const std::string& text) {
    auto list = split(text, ',');  // --enable-fs takes several at once, and "all"
    return std::ranges::find(list, name) != list.end() || std::ranges::find(list, "all") != list.end();
  };
  if (std::ranges::none_of(enabled, names)) return nullptr;
  auto it = std::ranges::find(kAutoTypes, name, &FsType::name);
  return it == kAutoTypes.end() ? nullptr : &*it;
}

uint32_t mount_flags(std::string_view words, std::vector<std::string>* unknown) {
  uint32_t flags = 0;
  for (auto word : split(words, ',')) {
    auto it = std::ranges::find(kMountWords, word, &Word::name);
    if (it != kMountWords.end())
      flags |= it->bit;
    else if (word != "rw" && unknown)
      unknown->emplace_back(word);
  }
  // mountinfo has no word for strictatime; MS_* has no bit for "none of the three".
  if (!(flags & (MS_RELATIME | MS_NOATIME))) flags |= MS_STRICTATIME;
  return flags;
}

SuperOptions super_options(std::string_view words) {
  SuperOptions options;
  std::vector<std::string> rest;
  for (auto word : split(words, ',')) {
    auto it = std::ranges::find(kSuperWords, word, &Word::name);
    if (it != kSuperWords.end())
      options.flags |= it->bit;
    else if (word != "rw" && word != "seclabel" && !word.empty())
      rest.emplace_back(word);
  }
  options.data = join(rest, ",");
  return options;
}

std::string flag_words(uint32_t flags) {
  std::vector<std::string> words;
  if (!(flags & MS_RDONLY)) words.emplace_back("rw");
  for (const auto& word : kMountWords)
    if (flags & word.bit) words.emplace_back(word.name);
  return join(words, ",");
}

uint32_t per_mount_mask() {
  uint32_t mask = MS_STRICTATIME;
  for (const auto& word : kMountWords) mask |= word.bit;
  return mask;
}

uint64_t mount_attrs(uint32_t flags) {
  uint64_t attrs = 0;
  for (const auto& word : kMountWords)
    if (flags & word.bit) attrs |= word.attr;
  // The time setting is a number in the MOUNT_ATTR__ATIME bits, not flags: relatime is 0.
  attrs &= ~static_cast<uint64_t>(MOUNT_ATTR__ATIME);
  if (flags & MS_NOATIME)
    attrs |= MOUNT_ATTR_NOATIME;
  else if (flags & MS_STRICTATIME)
    attrs |= MOUNT_ATTR_STRICTATIME;
  return attrs;
}

}  // namespace stasis::mounts
