// SPDX-License-Identifier: Apache-2.0
// An inode that inotify(7) or fanotify(7) watches. /proc/PID/fdinfo tells it by number and file handle; its path is
// found through the handle, or, where the file system opens none (overlayfs), by looking through it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/files/kind.h"

namespace stasis::files {

struct WatchedInode {
  uint64_t inode = 0;
  uint32_t device = 0;  // of the superblock, in the kernel's encoding
  uint32_t handle_type = 0;
  std::string handle;  // bytes; empty: the file system has none
};

// The words "ino:", "sdev:", "fhandle-type:", "f_handle:" of a line, all hexadecimal; nothing if they make no sense.
std::optional<WatchedInode> parse_watched(std::string_view line);
// Of the word "KEY:VALUE" of a line; nothing if it is not there.
std::optional<uint32_t> watched_number(std::string_view line, std::string_view key);
// Where it is in the container; nothing if it has no path there (deleted, or on no mount).
Result<std::optional<std::string>> path_of_watched(const DumpEnv& env, const WatchedInode& watched);
void set_handle(const WatchedInode& watched, pb::fh_entry& handle);

}  // namespace stasis::files
