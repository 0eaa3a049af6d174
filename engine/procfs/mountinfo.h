// SPDX-License-Identifier: Apache-2.0
// /proc/PID/mountinfo, proc(5); printed by show_mountinfo() in fs/proc_namespace.c.
// Pure text in, values out. Paths are relative to the root of the task whose file it is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace stasis::procfs {

struct MountInfo {
  int mnt_id = 0;
  int parent_id = 0;
  uint32_t major = 0, minor = 0;
  std::string root;        // within the file system; may end in "//deleted"
  std::string mountpoint;  // as above
  std::string options;     // of the mount: "rw,nosuid,relatime"
  int shared_id = 0;       // peer group, 0: none
  int master_id = 0;       // peer group this one is a slave of, 0: none
  int propagate_from = 0;  // nearest dominant peer group under the task's root, 0: not shown
  bool unbindable = false;
  std::string fstype;  // "fuse.sshfs" keeps its subtype
  std::string source;
  std::string super_options;  // of the file system: "rw,size=65536k"
};

// Octal escapes (\040 \011 \012 \134 \043) are undone. Unknown optional fields are ignored, as proc(5) asks.
Result<MountInfo> parse_mountinfo_line(std::string_view line);
Result<std::vector<MountInfo>> parse_mountinfo(std::string_view text);
// `proc_dirfd` is a descriptor of /proc; `pid` is a directory name there ("self", "12").
Result<std::vector<MountInfo>> read_mountinfo(int proc_dirfd, const std::string& pid);
// "a\040b" -> "a b"; a backslash without three octal digits stays.
std::string unescape_octal(std::string_view text);

}  // namespace stasis::procfs
