// SPDX-License-Identifier: Apache-2.0
#include "engine/files/watched.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstring>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"

namespace stasis::files {
namespace {

constexpr size_t kMaxHandle = 128, kMostSearched = 3;

bool unhex(std::string_view text, std::string& out) {
  if (text.size() % 2 || text.size() / 2 > kMaxHandle) return false;
  for (size_t i = 0; i < text.size(); i += 2) {
    const auto byte = parse_int<uint8_t>(text.substr(i, 2), 16);
    if (!byte) return false;
    out.push_back(static_cast<char>(*byte));
  }
  return true;
}

// By the file handle, through a mount of its file system. `gone`: it has no name any more.
std::optional<std::string> path_by_handle(const DumpEnv& env, const std::string& mountpoint, const WatchedInode& w,
                                          bool& gone) {
  if (w.handle.empty()) return std::nullopt;
  const auto path = kernel::open_path_in_root(env.root_dir.get(), mountpoint);
  if (!path) return std::nullopt;
  const auto mount = open_at(path->get(), ".", O_RDONLY | O_DIRECTORY);
  if (!mount) return std::nullopt;
  alignas(file_handle) char buffer[sizeof(file_handle) + kMaxHandle];
  auto* handle = reinterpret_cast<file_handle*>(buffer);
  handle->handle_bytes = static_cast<unsigned>(w.handle.size());
  handle->handle_type = static_cast<int>(w.handle_type);
  std::memcpy(handle->f_handle, w.handle.data(), w.handle.size());
  const Fd file(::open_by_handle_at(mount->get(), handle, O_PATH | O_CLOEXEC));
  struct stat st {};
  if (!file || ::fstat(file.get(), &st) < 0) return std::nullopt;
  gone = gone || st.st_nlink == 0;
  auto link = read_link_at(env.proc.fd(), cat("self/fd/", file.get()));
  if (!link || !leads_to(env, *link, st)) return std::nullopt;
  return *std::move(link);
}

// What the kernel itself says of the file there: a watch of our own is told in the same words.
bool is_watched(const DumpEnv& env, const std::string& path, const WatchedInode& w) {
  const auto file = kernel::open_path_in_root(env.root_dir.get(), path);
  const Fd own(::inotify_init1(IN_CLOEXEC));
  if (!file || !own || ::inotify_add_watch(own.get(), cat("/proc/self/fd/", file->get()).c_str(), IN_DELETE_SELF) < 0)
    return false;
  const auto info = env.proc.fdinfo(::getpid(), own.get());
  if (!info) return false;
  for (const auto& line : info->rest)
    if (const auto found = line.starts_with("inotify ") ? parse_watched(line) : std::nullopt)
      return found->inode == w.inode && found->device == w.device && found->handle == w.handle;
  return false;
}

// A file of overlayfs may tell the device of a layer in place of its own; the number is the same.
std::optional<std::string> look_in(const DumpEnv& env, const std::string& directory, const WatchedInode& w) {
  const dev_t device = makedev(w.device >> 20, w.device & 0xfffff);
  auto path = find_inode(env, directory, device, w.inode);
  if (!path && !w.handle.empty()) path = find_inode(env, directory, 0, w.inode);
  return path && is_watched(env, *path, w) ? path : std::nullopt;
}

}  // namespace

std::optional<uint32_t> watched_number(std::string_view line, std::string_view key) {
  for (const auto word : fields(line))
    if (const auto colon = word.find(':'); colon != std::string_view::npos && word.substr(0, colon) == key)
      return parse_int<uint32_t>(word.substr(colon + 1), 16);
  return std::nullopt;
}

std::optional<WatchedInode> parse_watched(std::string_view line) {
  WatchedInode w;
  bool ok = true;
  auto number = [&](auto& to, std::string_view text) {
    const auto value = parse_int<std::remove_reference_t<decltype(to)>>(text, 16);
    ok = ok && value;
    to = value.value_or(0);
  };
  for (const auto word : fields(line)) {
    const auto colon = word.find(':');
    if (colon == std::string_view::npos) continue;
    const auto key = word.substr(0, colon), value = word.substr(colon + 1);
    if (key == "ino") number(w.inode, value);
    if (key == "sdev") number(w.device, value);
    if (key == "fhandle-type") number(w.handle_type, value);
    if (key == "f_handle") ok = ok && unhex(value, w.handle);
  }
  if (!ok) return std::nullopt;
  return w;
}

Result<std::optional<std::string>> path_of_watched(const DumpEnv& env, const WatchedInode& w) {
  std::optional<mounts::Table> own;
  if (!env.mounts) own = TRY(mounts::Table::read(env.proc.fd(), cat(env.root_pid)));
  const auto& table = env.mounts ? *env.mounts : *own;
  const auto mounts = table.of_device(w.device);
  bool gone = false;
  auto scan = [&]() -> std::optional<std::string> {
    for (const auto& directory : env.options.irmap_scan_paths)
      if (auto path = look_in(env, directory, w)) return path;
    return std::nullopt;
  };
  if (env.options.force_irmap)
    if (auto path = scan()) return path;
  for (const auto* mount : mounts)
    if (auto path = path_by_handle(env, mount->mountpoint, w, gone)) return path;
  if (gone) return std::optional<std::string>();
  if (!env.options.force_irmap)
    if (auto path = scan()) return path;
  // Looking through a file system takes its time: not for each of its mounts.
  for (size_t i = 0; i < mounts.size() && i < kMostSearched; ++i)
    if (auto path = look_in(env, mounts[i]->mountpoint, w)) return path;
  return std::optional<std::string>();
}

void set_handle(const WatchedInode& w, pb::fh_entry& handle) {
  handle.set_bytes(static_cast<uint32_t>(w.handle.size())), handle.set_type(w.handle_type);
  uint64_t words[kMaxHandle / sizeof(uint64_t)] = {};
  std::memcpy(words, w.handle.data(), w.handle.size());
  for (const uint64_t word : words) handle.add_handle(word);
}

}  // namespace stasis::files
