// SPDX-License-Identifier: Apache-2.0
// A mount namespace as a tree: mountinfo (proc(5)) with lookup by id, by path and by file system.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/procfs/mountinfo.h"

namespace stasis::mounts {

// The kernel's dev_t as images carry it: 12 bits major, 20 bits minor.
constexpr uint32_t kernel_dev(uint32_t major, uint32_t minor) { return major << 20 | minor; }

struct Mount : procfs::MountInfo {
  uint32_t s_dev = 0;         // kernel_dev()
  int parent = -1;            // indexes into Table::mounts; -1: the root
  std::vector<int> children;  // deeper mountpoints first: mounting in this order never hides a place still needed
};

struct Table {
  std::vector<Mount> mounts;  // in the order of the file
  int root = -1;              // index of the mount at "/" whose parent is not shown

  static Result<Table> build(std::vector<procfs::MountInfo> infos);
  static Result<Table> parse(std::string_view mountinfo_text);
  static Result<Table> read(int proc_dirfd, const std::string& pid);

  const Mount* find(int mnt_id) const;
  // The mount that a path walk ends in; `path` is absolute and clean. Never null.
  const Mount& at(std::string_view path) const;
  // False if another mount covers it or one of the directories above it.
  bool reachable(const Mount& mount) const;
  // What has to be unmounted, in this order, for a path walk to end in it.
  std::vector<const Mount*> covered_by(const Mount& mount) const;
  std::vector<const Mount*> of_device(uint32_t s_dev) const;
  // Some mount of this peer group, or nullptr.
  const Mount* peer(int shared_id) const;
  // Every mount, parents first, siblings in mounting order.
  std::vector<const Mount*> in_order() const;

 private:
  int walk(std::string_view path, const std::set<int>& gone) const;

  std::map<int, int> by_id_;
};

// "mount /proc (proc)"
std::string describe(const procfs::MountInfo& mount);

// Is `path` the same as `dir` or below it? Both absolute and clean.
bool is_under(std::string_view path, std::string_view dir);
// The rest of `path` below `dir`, without a leading slash; "" if they are equal. Only if is_under().
std::string_view below(std::string_view path, std::string_view dir);
// Absolute, no "." or ".." component, no empty component; "/" itself is clean.
bool is_clean_path(std::string_view path);
std::string join_path(std::string_view dir, std::string_view rest);

}  // namespace stasis::mounts
