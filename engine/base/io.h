// SPDX-License-Identifier: Apache-2.0
// File access relative to directory descriptors; everything is O_CLOEXEC.
#pragma once

#include <fcntl.h>
#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis {

// openat(2) with O_CLOEXEC added. dirfd may be AT_FDCWD.
Result<Fd> open_at(int dirfd, const std::string& path, int flags, mode_t mode = 0);
// The whole file, at most `limit` bytes (more is an error). Works for /proc and cgroupfs.
Result<std::string> read_file_at(int dirfd, const std::string& path, size_t limit = 64u << 20);
Result<std::string> read_all(int fd, size_t limit = 64u << 20, std::string_view name = "file");
// Exactly one write(2), as control files of /proc and cgroupfs want it.
Result<void> write_file_at(int dirfd, const std::string& path, std::string_view text);
// Writes every byte, or fails; retries short writes and EINTR.
Result<void> write_full(int fd, const void* data, size_t size, std::string_view name = "file");
// Reads exactly `size` bytes or fails (kImageCorrupt on early end of file).
Result<void> read_full(int fd, void* data, size_t size, std::string_view name = "file");
Result<std::string> read_link_at(int dirfd, const std::string& path);
// Names in a directory, without "." and "..", in the kernel's order.
Result<std::vector<std::string>> list_dir(int dirfd, const std::string& path);
// A new descriptor number >= minimum, O_CLOEXEC.
Result<Fd> dup_at_least(int fd, int minimum = 3);
// mkdir -p for the directories of `path` under dirfd.
Result<void> make_dirs_at(int dirfd, const std::string& path, mode_t mode = 0755);

}  // namespace stasis
