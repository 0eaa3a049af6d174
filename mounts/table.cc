// SPDX-License-Identifier: Apache-2.0
#include "mounts/table.h"

#include <algorithm>

namespace stasis::mounts {
namespace {

size_t depth(std::string_view path) { return path == "/" ? 0 : std::count(path.begin(), path.end(), '/'); }

}  // namespace

bool is_under(std::string_view path, std::string_view dir) {
  if (dir == "/") return path.starts_with('/');
  return path.starts_with(dir) && (path.size() == dir.size() || path[dir.size()] == '/');
}

std::string_view below(std::string_view path, std::string_view dir) {
  path.remove_prefix(dir == "/" ? 1 : std::min(path.size(), dir.size()));
  if (path.starts_with('/')) path.remove_prefix(1);
  return path;
}

bool is_clean_path(std::string_view path) {
  if (!path.starts_with('/') || path.find('\0') != path.npos) return false;
  if (path == "/") return true;
  for (auto part : split(path.substr(1), '/'))
    if (part.empty() || part == "." || part == "..") return false;
  return true;
}

std::string join_path(std::string_view dir, std::string_view rest) {
  if (rest.empty()) return std::string(dir);
  if (dir == "/") return cat("/", rest);
  return cat(dir, "/", rest);
}

std::string describe(const procfs::MountInfo& mount) {
  return cat("mount ", mount.mountpoint, " (", mount.fstype, ")");
}

Result<Table> Table::build(std::vector<procfs::MountInfo> infos) {
  Table t;
  t.mounts.reserve(infos.size());
  for (auto& info : infos) {
    Mount m{std::move(info)};
    m.s_dev = kernel_dev(m.major, m.minor);
    if (!t.by_id_.emplace(m.mnt_id, static_cast<int>(t.mounts.size())).second)
      return fail(Error(Code::kSystem, cat("two mounts with id ", m.mnt_id)).about("mountinfo"));
    t.mounts.push_back(std::move(m));
  }
  for (int i = 0; i < static_cast<int>(t.mounts.size()); ++i) {
    Mount& m = t.mounts[i];
    auto parent = t.by_id_.find(m.parent_id);
    if (parent == t.by_id_.end() || parent->second == i) {
      if (t.root >= 0)
        return fail(Error(Code::kSystem, cat("two roots: mount ", t.mounts[t.root].mnt_id, " and ", m.mnt_id))
                        .about("mountinfo"));
      t.root = i;
    } else {
      m.parent = parent->second;
      t.mounts[m.parent].children.push_back(i);
    }
  }
  if (t.root < 0) return fail(Error(Code::kSystem, "no root mount").about("mountinfo"));
  for (auto& m : t.mounts)
    std::ranges::stable_sort(m.children, std::greater<>(), [&](int c) { return depth(t.mounts[c].mountpoint); });
  if (t.in_order().size() != t.mounts.size())
    return fail(Error(Code::kSystem, "the parents of some mounts form a ring").about("mountinfo"));
  return t;
}

Result<Table> Table::parse(std::string_view text) { return build(TRY(procfs::parse_mountinfo(text))); }

Result<Table> Table::read(int proc_dirfd, const std::string& pid) {
  return build(TRY(procfs::read_mountinfo(proc_dirfd, pid)));
}

const Mount* Table::find(int mnt_id) const {
  auto it = by_id_.find(mnt_id);
  return it == by_id_.end() ? nullptr : &mounts[it->second];
}

int Table::walk(std::string_view path, const std::set<int>& gone) const {
  int here = root;
  for (;;) {
    // Of the children on the path the walk crosses the shallowest; children are sorted deepest first.
    int next = -1;
    for (int c : mounts[here].children)
      if (!gone.contains(c) && is_under(path, mounts[c].mountpoint)) next = c;
    if (next < 0) return here;
    here = next;
  }
}

const Mount& Table::at(std::string_view path) const { return mounts[walk(path, {})]; }

bool Table::reachable(const Mount& mount) const { return &at(mount.mountpoint) == &mount; }

std::vector<const Mount*> Table::covered_by(const Mount& mount) const {
  std::vector<const Mount*> covers;
  std::set<int> gone;
  for (int top = walk(mount.mountpoint, gone); &mounts[top] != &mount; top = walk(mount.mountpoint, gone)) {
    if (top == root) break;  // not in the tree
    covers.push_back(&mounts[top]);
    gone.insert(top);
  }
  return covers;
}

std::vector<const Mount*> Table::of_device(uint32_t s_dev) const {
  std::vector<const Mount*> found;
  for (const auto& m : mounts)
    if (m.s_dev == s_dev) found.push_back(&m);
  return found;
}

const Mount* Table::peer(int shared_id) const {
  for (const auto& m : mounts)
    if (m.shared_id == shared_id) return &m;
  return nullptr;
}

std::vector<const Mount*> Table::in_order() const {
  std::vector<const Mount*> order;
  std::vector<int> stack;
  if (root >= 0) stack.push_back(root);
  while (!stack.empty()) {
    int i = stack.back();
    stack.pop_back();
    order.push_back(&mounts[i]);
    for (auto c = mounts[i].children.rbegin(); c != mounts[i].children.rend(); ++c) stack.push_back(*c);
  }
  return order;
}

}  // namespace stasis::mounts
