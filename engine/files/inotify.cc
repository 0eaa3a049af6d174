// SPDX-License-Identifier: Apache-2.0
// inotify(7). What is watched is found by watched.h. On restore the path counts: the inode may be another. Watches are
// made when all files are open, so that they do not see those being opened, and keep their numbers.
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "engine/base/io.h"
#include "engine/files/watched.h"

namespace stasis::files {
namespace {

constexpr uint32_t kMaxWatch = 1u << 20;  // the kernel counts up to a number one by one, and so do we
constexpr uint32_t kKept = IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK;

bool matches(const Candidate& c) { return c.link == "anon_inode:inotify"; }

struct Watch {
  uint32_t wd = 0, mask = 0;
  WatchedInode on;
};

// "inotify wd:1 ino:5c sdev:29 mask:fc6 ignored_mask:0 fhandle-bytes:c fhandle-type:1 f_handle:00..", all hexadecimal;
// fs/notify/fdinfo.c. Nothing about a handle if there is none.
std::optional<Watch> parse_watch(std::string_view line) {
  const auto on = parse_watched(line);
  const auto wd = watched_number(line, "wd"), mask = watched_number(line, "mask");
  if (!on || !mask || !wd || *wd == 0) return std::nullopt;
  return Watch{*wd, *mask, *on};
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

Result<std::string> path_of(const Candidate& c, const DumpEnv& env, const Watch& w) {
  if (auto path = TRY(path_of_watched(env, w.on))) return *std::move(path);
  return fail(Error(Code::kUnsupportedFile, cat(c.name(), " has inotify watch ", w.wd, " on inode ", w.on.inode,
                                                " of device ", w.on.device >> 20, ":", w.on.device & 0xfffff,
                                                ", which has no path in the container (deleted, or on no mount)"))
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
    out.set_id(entry.id()), out.set_i_ino(w.on.inode), out.set_mask(w.mask), out.set_ignored_mask(0);
    out.set_s_dev(w.on.device), out.set_wd(w.wd);
    set_handle(w.on, *out.mutable_f_handle());
    out.mutable_f_handle()->set_path(TRY(path_of(c, env, w)));
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
