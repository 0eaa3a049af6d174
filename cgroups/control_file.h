// SPDX-License-Identifier: Apache-2.0
// The only reader and writer of control files: relative to a cgroup's directory, one write(2) per value.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::cgroups {

struct ControlFile {
  std::string text;  // without the trailing newline
  mode_t mode = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

struct Listing {
  std::vector<std::string> dirs;   // sorted
  std::vector<std::string> files;  // sorted
};

Result<Fd> open_dir(int root_fd, const std::string& path);
Result<Listing> list(int dir_fd);
Result<std::string> read_control(int dir_fd, const std::string& name);
Result<ControlFile> read_control_with_owner(int dir_fd, const std::string& name);
Result<void> write_control(int dir_fd, const std::string& name, std::string_view value);
Result<Fd> open_for_writing(int dir_fd, const std::string& name);
bool has_control(int dir_fd, const std::string& name);

}  // namespace stasis::cgroups
