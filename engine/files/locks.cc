// SPDX-License-Identifier: Apache-2.0
// Locks and leases on open files: flock(2), fcntl(2) F_SETLK, F_OFD_SETLK, F_SETLEASE. /proc/PID/fdinfo shows what each
// descriptor holds. A task that waits for a lock makes its call again and needs nothing. The locks of open file
// descriptions are taken in the root stub, when everything is open; those of a process by itself, very late: they are
// lost when the process closes any descriptor of the file.
#include "engine/files/locks.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "engine/base/strings.h"
#include "engine/files/kind.h"

namespace stasis::files {
namespace {

constexpr std::string_view kLine = "lock:";
constexpr const char* kImage = "filelocks.img";

std::optional<LockLine> parse_fields(const std::vector<std::string_view>& f) {
  // "1: POSIX  ADVISORY  WRITE 12 00:2f:123 0 EOF", fs/locks.c lock_get_status()
  if (f.size() != 8) return std::nullopt;
  LockLine out;
  auto& e = out.entry;
  out.kind = f[1], out.state = f[2];
  if (f[1] == "POSIX")
    e.set_flag(kPosixLock);
  else if (f[1] == "FLOCK")
    e.set_flag(kFlock);
  else if (f[1] == "OFDLCK")
    e.set_flag(kDescriptionLock);
  else if (f[1] == "LEASE")
    e.set_flag(kLease);
  if (f[3] != "READ" && f[3] != "WRITE" && f[3] != "UNLCK") return std::nullopt;
  e.set_type(f[3] == "READ" ? F_RDLCK : f[3] == "WRITE" ? F_WRLCK : F_UNLCK);
  const auto pid = parse_int<int32_t>(f[4]);
  const auto start = parse_int<int64_t>(f[6]);
  const auto end = f[7] == "EOF" ? std::optional<int64_t>(-1) : parse_int<int64_t>(f[7]);
  if (!pid || !start || !end || *start < 0 || (*end >= 0 && *end < *start)) return std::nullopt;
  e.set_pid(*pid), e.set_fd(-1), e.set_start(*start), e.set_len(*end < 0 ? 0 : *end - *start + 1);
  return out;
}

bool same_lock(const pb::file_lock_entry& a, const pb::file_lock_entry& b) {
  return a.flag() == b.flag() && a.type() == b.type() && a.start() == b.start() && a.len() == b.len();
}

std::string describe(const Lock& lock, const RestoreEnv& env) {
  const auto file = env.files.find(lock.file);
  const std::string name =
      file != env.files.end() && file->second.has_reg() ? file->second.reg().name() : cat("file ", lock.file);
  const auto& e = lock.entry;
  const bool ranged = e.flag() == kPosixLock || e.flag() == kDescriptionLock;
  return cat(
      e.flag() == kLease ? "lease" : "lock", " on ", name,
      ranged ? cat(" from byte ", e.start(), e.len() ? cat(", ", e.len(), " bytes") : std::string()) : std::string());
}

std::unexpected<Error> held(const Lock& lock, const RestoreEnv& env, std::string by) {
  const std::string what = describe(lock, env);
  return fail(Error(Code::kRestoreFailed, cat("the ", what, " cannot be had again: it is held by ", by)).about(what));
}

struct flock range_of(const pb::file_lock_entry& e) {
  struct flock range {};
  range.l_type = static_cast<short>(e.type());
  range.l_whence = SEEK_SET, range.l_start = e.start(), range.l_len = e.len();
  return range;
}

// Takes it, or for that of a process sees whether it could be taken.
Result<void> take(const Lock& lock, int fd, const RestoreEnv& env) {
  auto range = range_of(lock.entry);
  if (lock.entry.flag() == kFlock) {
    if (::flock(fd, (lock.entry.type() == F_RDLCK ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0) return {};
    if (errno == EWOULDBLOCK) return held(lock, env, "somebody outside the container");
    return fail_sys(Code::kRestoreFailed, "flock", describe(lock, env));
  }
  if (lock.entry.flag() == kDescriptionLock) {
    if (::fcntl(fd, F_OFD_SETLK, &range) == 0) return {};
    if (errno == EAGAIN || errno == EACCES) return held(lock, env, "somebody outside the container");
    return fail_sys(Code::kRestoreFailed, "fcntl(F_OFD_SETLK)", describe(lock, env));
  }
  if (lock.entry.flag() == kPosixLock) {
    if (::fcntl(fd, F_OFD_GETLK, &range) < 0)
      return fail_sys(Code::kRestoreFailed, "fcntl(F_OFD_GETLK)", describe(lock, env));
    if (range.l_type != F_UNLCK) return held(lock, env, "somebody outside the container");
  }
  return {};
}

}  // namespace

std::optional<LockLine> parse_lock(std::string_view line) {
  if (!line.starts_with(kLine)) return std::nullopt;
  return parse_fields(fields(line.substr(kLine.size())));
}

Result<void> check_locks(const Candidate& c) {
  for (const auto& line : c.info.rest) {
    if (!line.starts_with(kLine)) continue;
    const auto lock = parse_lock(line);
    auto refuse = [&](std::string_view what) {
      return fail(Error(Code::kUnsupportedFile, cat(c.name(), " holds ", what)).about(c.name()));
    };
    if (!lock || lock->entry.flag() == 0) return refuse(cat("a lock of an unknown kind (", trim(line), ")"));
    if (lock->entry.flag() != kLease) {
      if (lock->state != "ADVISORY" || lock->entry.type() == F_UNLCK)
        return refuse(cat("a lock of an unknown kind (", trim(line), ")"));
      continue;
    }
    // Who breaks it waits for a time that nobody can read.
    if (lock->state != "ACTIVE") return refuse("a lease that is being broken");
    if (is_deleted(c)) return refuse("a lease on a deleted file");  // reading the file would break it
  }
  return {};
}

Result<void> note_locks(const Candidate& c, const DumpEnv& env, uint32_t file_id, std::vector<Lock>& locks) {
  for (const auto& line : c.info.rest) {
    auto lock = parse_lock(line);
    if (!lock) continue;
    const pid_t taker = lock->entry.pid();
    lock->entry.set_pid(static_cast<int32_t>(env.pids.at(c.pid)));
    lock->entry.set_fd(c.fd);
    // Descriptors of one open file description, in one task or many, show the same lock each.
    const bool of_process = lock->entry.flag() == kPosixLock;
    const auto known = std::ranges::find_if(locks, [&](const Lock& k) {
      return k.file == file_id && same_lock(k.entry, lock->entry) &&
             (!of_process || k.entry.pid() == lock->entry.pid());
    });
    if (known == locks.end())
      locks.push_back({lock->entry, file_id});
    else if (!of_process && taker == c.pid)
      known->entry = lock->entry;  // who took it, of all that could have
  }
  return {};
}

Result<std::vector<Lock>> load_locks(const image::Reader& images) {
  std::vector<Lock> out;
  if (!images.exists(kImage)) return out;
  for (const auto& e : TRY(images.read_all<pb::file_lock_entry>(image::Kind::kFileLocks, kImage))) {
    const bool known =
        e.flag() == kPosixLock || e.flag() == kFlock || e.flag() == kDescriptionLock || e.flag() == kLease;
    if (!known || (e.type() != F_RDLCK && e.type() != F_WRLCK))
      return fail(Error(Code::kUnsupportedFile, cat(kImage, ": a lock of kind ", e.flag(), " and type ", e.type(),
                                                    " (being broken, or unknown)"))
                      .about(kImage));
    if (e.start() < 0 || e.len() < 0 || e.len() > std::numeric_limits<int64_t>::max() - e.start())
      return fail(Error(Code::kImageCorrupt, cat(kImage, ": range of a lock of pid ", e.pid())).about(kImage));
    out.push_back({e, 0});
  }
  return out;
}

void add_locks_image(const std::vector<Lock>& locks, std::vector<pb::file_lock_entry>& out) {
  for (const auto& lock : locks) out.push_back(lock.entry);
}

Result<void> find_lock_files(std::vector<Lock>& locks, uint32_t pid, const std::vector<pb::fdinfo_entry>& fds) {
  for (auto& lock : locks) {
    if (lock.entry.pid() < 0 || static_cast<uint32_t>(lock.entry.pid()) != pid) continue;
    const auto at = std::ranges::find_if(
        fds, [&](const auto& f) { return lock.entry.fd() >= 0 && f.fd() == static_cast<uint32_t>(lock.entry.fd()); });
    if (at == fds.end())
      return fail(
          Error(Code::kImageCorrupt, cat(kImage, ": pid ", pid, " has no descriptor ", lock.entry.fd())).about(kImage));
    lock.file = at->id();
  }
  return {};
}

Result<void> check_lock_files(const std::vector<Lock>& locks) {
  for (const auto& lock : locks)
    if (lock.file == 0)
      return fail(Error(Code::kImageCorrupt, cat(kImage, ": no process ", lock.entry.pid())).about(kImage));
  return {};
}

Result<void> take_locks(const RestoreEnv& env) {
  if (!env.locks) return {};
  for (const auto& lock : *env.locks) TRY(take(lock, env.numbers.at(lock.file), env));
  return {};
}

void take_own_locks(uint32_t pid, const RestoreEnv& env, remote::Batch& batch) {
  if (!env.locks || env.numbers.empty()) return;
  auto mine = [&](const Lock& lock, uint32_t flag) {
    return lock.entry.flag() == flag && static_cast<uint32_t>(lock.entry.pid()) == pid;
  };
  if (std::ranges::any_of(*env.locks, [&](const Lock& lock) { return mine(lock, kPosixLock); })) {
    // Closing one of these later would take the locks away again.
    const auto [low, high] =
        std::ranges::minmax_element(env.numbers, {}, [](const auto& number) { return number.second; });
    batch.add(__NR_close_range, low->second, high->second, 0);
    batch.must("close_range");
  }
  for (const auto& lock : *env.locks) {
    if (mine(lock, kPosixLock)) {
      batch.add(__NR_fcntl, lock.entry.fd(), F_SETLK, batch.put(range_of(lock.entry)));
      batch.must(cat("fcntl(F_SETLK) for the ", describe(lock, env)));
    } else if (mine(lock, kLease)) {
      batch.add(__NR_fcntl, lock.entry.fd(), F_SETLEASE, lock.entry.type());
      batch.must(cat("fcntl(F_SETLEASE) for the ", describe(lock, env)));
    }
  }
}

}  // namespace stasis::files
