// SPDX-License-Identifier: Apache-2.0
// inotify(7). /proc/PID/fdinfo tells what is watched by inode and file handle: its path is found through the handle,
// or, where the file system has none that can be opened (overlayfs), by looking through it. On restore the path counts:
// the inode may be another. Watches are made when all files are open, so that they do not see those being opened, and
// keep their numbers.
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/kernel/syscalls.h"

namespace stasis::files {
namespace {

constexpr uint32_t kMaxWatch = 1u << 20;  // the kernel counts up to a number one by one, and so do we
constexpr uint32_t kKept = IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK;
constexpr size_t kMaxHandle = 128, kMostSearched = 3;

bool matches(const Candidate& c) { return c.link == "anon_inode:inotify"; }

struct Watch {
  uint32_t wd = 0, mask = 0, device = 0, handle_type = 0;
  uint64_t inode = 0;
  std::string handle;  // bytes
};

bool unhex(std::string_view text, std::string& out) {
  if (text.size() % 2 || text.size() / 2 > kMaxHandle) return false;
  for (size_t i = 0; i < text.size(); i += 2) {
    const auto byte = parse_int<uint8_t>(text.substr(i, 2), 16);
    if (!byte) return false;
    out.push_back(static_cast<char>(*byte));
  }
  return true;
}

// "inotify wd:1 ino:5c sdev:29 mask:fc6 ignored_mask:0 fhandle-bytes:c fhandle-type:1 f_handle:00..", all hexadecimal;
// fs/notify/fdinfo.c. Nothing about a handle if there is none.
std::optional<Watch> parse_watch(std::string_view line) {
  Watch w;
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
    if (key == "wd") number(w.wd, value);
    if (key == "ino") number(w.inode, value);
    if (key == "sdev") number(w.device, value);
    if (key == "mask") number(w.mask, value);
    if (key == "fhandle-type") number(w.handle_type, value);
    if (key == "f_handle") ok = ok && unhex(value, w.handle);
  }
  if (!ok || w.wd == 0) return std::nullopt;
  return w;
}

Result<std::vector<Watch>> watches_of(const Candidate& c) {
  std::vector<Watch> out;
  for (const auto& line : c.info.rest) {
    if (!line.starts_with("inotify ")) continue;
    auto watch = parse_watch(line);
    if (!watch) return fail(Error(Code::kSystem, cat(c.name(), ": unknown line ", line)).about(c.name()));
    out.push_back(*std::move(watch));
  }
  return out;
}

// By the file handle, through a mount of its file system. `gone`: it has no name any more.
std::optional<std::string> path_by_handle(const DumpEnv& env, const std::string& mountpoint, const Watch& w,
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

Result<std::string> path_of(const Candidate& c, const DumpEnv& env, const Watch& w) {
  std::optional<mounts::Table> own;
  if (!env.mounts) own = TRY(mounts::Table::read(env.proc.fd(), cat(env.root_pid)));
  const auto& table = env.mounts ? *env.mounts : *own;
  const auto mounts = table.of_device(w.device);
  bool gone = false;
  for (const auto* mount : mounts)
    if (auto path = path_by_handle(env, mount->mountpoint, w, gone)) return *std::move(path);
  const dev_t device = makedev(w.device >> 20, w.device & 0xfffff);
  // Looking through a file system takes its time: not for each of its mounts.
  for (size_t i = 0; i < mounts.size() && i < kMostSearched && !gone; ++i)
    if (auto path = find_inode(env, mounts[i]->mountpoint, device, w.inode)) return *std::move(path);
  return fail(Error(Code::kUnsupportedFile,
                    cat(c.name(), " has inotify watch ", w.wd, " on inode ", w.inode, " of device ", w.device >> 20,
                        ":", w.device & 0xfffff, ", which has no path in the container (deleted, or on no mount)"))
                  .about(c.name()));
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  int pending = 0;
  if (::ioctl(c.copy.get(), FIONREAD, &pending) < 0) return fail_sys("ioctl(FIONREAD)", c.name());
  // Nothing can queue them again, and whoever waits for one would wait for ever.
  if (pending > 0)
    return fail(
        Error(Code::kUnsupportedFile, cat(c.name(), " has inotify events that were not read (", pending, " bytes)"))
            .about(c.name()));
  for (const auto& w : TRY(watches_of(c))) {
    if (w.wd > kMaxWatch)
      return fail(Error(Code::kUnsupportedFile, cat(c.name(), " has inotify watch ", w.wd)).about(c.name()));
    TRY(path_of(c, env, w));
  }
  return {};
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput&, pb::file_entry& entry) {
  entry.set_type(pb::INOTIFY);
  auto& ify = *entry.mutable_ify();
  ify.set_id(entry.id());
  ify.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  set_no_owner(ify.mutable_fown());
  for (const auto& w : TRY(watches_of(c))) {
    auto& out = *ify.add_wd();
    out.set_id(entry.id()), out.set_i_ino(w.inode), out.set_mask(w.mask), out.set_ignored_mask(0);
    out.set_s_dev(w.device), out.set_wd(w.wd);
    auto& handle = *out.mutable_f_handle();
    handle.set_bytes(static_cast<uint32_t>(w.handle.size())), handle.set_type(w.handle_type);
    uint64_t words[kMaxHandle / sizeof(uint64_t)] = {};
    std::memcpy(words, w.handle.data(), w.handle.size());
    for (const uint64_t word : words) handle.add_handle(word);
    handle.set_path(TRY(path_of(c, env, w)));
  }
  return {};
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv&) {
  auto corrupt = [&](std::string_view what) {
    return fail(Code::kImageCorrupt, cat("files.img: file ", entry.id(), " ", what));
  };
  if (!entry.has_ify()) return corrupt("is no inotify file");
  std::set<uint32_t> seen;
  for (const auto& wd : entry.ify().wd()) {
    if (wd.wd() == 0 || wd.wd() > kMaxWatch || !seen.insert(wd.wd()).second || !(wd.mask() & kKept))
      return corrupt(cat("has inotify watch ", wd.wd()));
    if (!wd.f_handle().path().starts_with("/"))
      return fail(Code::kUnsupportedFile,
                  cat("files.img: inotify watch ", wd.wd(), " of file ", entry.id(), " has no path"));
  }
  Fd fd(::inotify_init1(IN_CLOEXEC | (entry.ify().flags() & O_NONBLOCK ? IN_NONBLOCK : 0)));
  if (!fd) return fail_sys("inotify_init1");
  return fd;
}

// Numbers are given in ascending order: what is too low is removed again.
Result<void> add_watch(int fd, const pb::inotify_wd_entry& wd) {
  const auto& path = wd.f_handle().path();
  while (true) {
    const int got = ::inotify_add_watch(fd, path.c_str(), (wd.mask() & kKept) | IN_DONT_FOLLOW);
    if (got < 0 && (errno == ENOENT || errno == ENOTDIR))
      return fail(
          Error(Code::kFileMissing, cat("file ", path, ", which is watched with inotify, is missing")).about(path));
    if (got < 0) return fail_sys(Code::kRestoreFailed, "inotify_add_watch", path);
    const auto number = static_cast<uint32_t>(got);
    if (number == wd.wd()) return {};
    if (number > wd.wd() || ::inotify_rm_watch(fd, got) < 0)
      return fail(Error(Code::kRestoreFailed, cat("inotify watch ", wd.wd(), " on ", path, " cannot have its number"))
                      .about(path));
  }
}

// What the removed watches have left.
Result<void> drain(int fd) {
  char buffer[4096];
  for (int queued = 0; ::ioctl(fd, FIONREAD, &queued) == 0 && queued > 0;)
    if (::read(fd, buffer, sizeof buffer) <= 0) return fail_sys("read", "inotify");
  return {};
}

Result<void> add_watches(RestoreEnv& env) {
  for (const auto& [id, file] : env.files) {
    if (!file.has_ify()) continue;
    std::vector<const pb::inotify_wd_entry*> sorted;
    for (const auto& wd : file.ify().wd()) sorted.push_back(&wd);
    std::ranges::sort(sorted, {}, [](const auto* wd) { return wd->wd(); });
    for (const auto* wd : sorted) TRY(add_watch(env.numbers.at(id), *wd));
    TRY(drain(env.numbers.at(id)));
  }
  return {};
}

}  // namespace

const FileKind kInotify = {"inotify", pb::INOTIFY, matches, check, dump, restore, nullptr, add_watches};

}  // namespace stasis::files
