// SPDX-License-Identifier: Apache-2.0
// Looks through file systems for the path of an inode. A file whose name was removed while it has others, link(2):
// nothing tells the others, so the search begins where the file was. Nothing is made in the container's file system,
// and on restore the file is simply open by the other name.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/kernel/syscalls.h"

namespace stasis::files {
namespace {

constexpr size_t kMaxEntries = 200'000;

struct Search {
  dev_t wanted_device;  // 0: whatever the file system tells
  ino_t wanted;
  dev_t device;              // of the directories
  bool directories = false;  // it may be one
  size_t entries = 0;
};

// The path below `path`, which is open, or nothing.
std::optional<std::string> look_below(Search& search, Fd directory, const std::string& path, const std::string& skip,
                                      int depth) {
  struct stat st {};
  if (depth > 100 || ::fstat(directory.get(), &st) < 0 || st.st_dev != search.device) return std::nullopt;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(directory.release()), ::closedir);
  if (!dir) return std::nullopt;
  std::vector<std::string> below;
  while (const auto* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == ".." || ++search.entries > kMaxEntries) continue;
    const std::string full = cat(path == "/" ? "" : path, "/", name);
    if (entry->d_type == DT_DIR && full != skip) below.emplace_back(name);
    if (entry->d_type == DT_DIR && !search.directories) continue;
    if (::fstatat(::dirfd(dir.get()), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        (search.wanted_device == 0 || st.st_dev == search.wanted_device) && st.st_ino == search.wanted)
      return full;
  }
  for (const auto& name : below) {
    auto child = open_at(::dirfd(dir.get()), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME);
    if (!child) continue;
    auto found = look_below(search, *std::move(child), cat(path == "/" ? "" : path, "/", name), skip, depth + 1);
    if (found) return found;
  }
  return std::nullopt;
}

// Reopened for reading: what leads there may not be followed out of the container.
Result<Fd> open_directory(const DumpEnv& env, const std::string& directory) {
  const Fd path = TRY(kernel::open_path_in_root(env.root_dir.get(), directory));
  return open_at(path.get(), ".", O_RDONLY | O_DIRECTORY | O_NOATIME);
}

std::string above(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

}  // namespace

Result<std::string> find_other_name(const Candidate& c, const DumpEnv& env) {
  std::string directory = above(c.link), skip;
  std::optional<Search> search;
  while (true) {
    auto opened = open_directory(env, directory);
    if (opened) {
      struct stat st {};
      if (::fstat(opened->get(), &st) < 0) return fail_sys("fstat", directory);
      if (search && st.st_dev != search->device) break;
      if (!search) search.emplace(Search{c.st.st_dev, c.st.st_ino, st.st_dev});
      const auto found = look_below(*search, *std::move(opened), directory, skip, 0);
      if (found && leads_to(env, *found, c.st)) return *found;
    }
    if (directory == "/" || (search && search->entries > kMaxEntries)) break;
    skip = directory;
    directory = above(directory);
  }
  return fail(Error(Code::kUnsupportedFile, cat(c.name(), " is deleted, and none of its other names (", c.st.st_nlink,
                                                " hard links) can be found in the container"))
                  .about(c.name()));
}

std::optional<std::string> find_inode(const DumpEnv& env, const std::string& directory, dev_t device, ino_t inode) {
  auto opened = open_directory(env, directory);
  struct stat st {};
  if (!opened || ::fstat(opened->get(), &st) < 0) return std::nullopt;
  if ((device == 0 || st.st_dev == device) && st.st_ino == inode) return directory;
  Search search{device, inode, st.st_dev, true};
  return look_below(search, *std::move(opened), directory, {}, 0);
}

}  // namespace stasis::files
