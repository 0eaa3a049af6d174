// SPDX-License-Identifier: Apache-2.0
#include "engine/namespaces/time.h"

#include <fcntl.h>
#include <linux/sched.h>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"
#include "proto/namespaces.pb.h"

namespace stasis::namespaces {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
// The kernel wants a clock to stay below KTIME_SEC_MAX / 2, kernel/time/namespace.c.
constexpr uint64_t kMaxSeconds = INT64_MAX / kSecond / 2;

int64_t ns(const timespec& t) { return t.tv_sec * kSecond + t.tv_nsec; }

timespec now(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return t;
}

// "monotonic  SECONDS NANOSECONDS", of a task, against the first time namespace.
Result<int64_t> offset(const procfs::Procfs& proc, std::string_view task, std::string_view clock) {
  const std::string path = cat(task, "/timens_offsets"), text = TRY(read_file_at(proc.fd(), path));
  for (auto line : lines(text)) {
    const auto f = fields(line);
    if (f.size() != 3 || f[0] != clock) continue;
    const auto seconds = parse_int<int64_t>(f[1]), rest = parse_int<int64_t>(f[2]);
    if (seconds && rest) return *seconds * kSecond + *rest;
  }
  return fail(Code::kKernelFeature, cat("/proc/", path, " has no ", clock, " clock"));
}

Result<int64_t> own_offset(const procfs::Procfs& proc, std::string_view clock) { return offset(proc, "self", clock); }

// Offsets are floored: nanoseconds are never negative.
std::string offset_line(std::string_view clock, int64_t offset) {
  int64_t seconds = offset / kSecond, rest = offset % kSecond;
  if (rest < 0) --seconds, rest += kSecond;
  return cat(clock, " ", seconds, " ", rest, "\n");
}

Result<timespec> checked(const pb::timespec& t, const std::string& name) {
  if (t.tv_sec() > kMaxSeconds || t.tv_nsec() >= static_cast<uint64_t>(kSecond))
    return fail(
        Error(Code::kImageCorrupt, cat(name, ": a clock at ", t.tv_sec(), " s ", t.tv_nsec(), " ns")).about(name));
  return timespec{static_cast<time_t>(t.tv_sec()), static_cast<long>(t.tv_nsec())};
}

}  // namespace

void find_nested_time(const procfs::Procfs& proc, pid_t pid, std::vector<Error>& obstacles) {
  const auto own = proc.ns(pid, "time"), children = proc.ns(pid, "time_for_children");
  if (own && children && !(*own == *children))
    obstacles.push_back(
        Error(Code::kUnsupportedNamespace, cat("pid ", pid, " makes its children in another time namespace"))
            .about(cat("pid ", pid)));
}

Result<timespec> now_of(const procfs::Procfs& proc, pid_t pid, clockid_t clock) {
  const bool boot = clock == CLOCK_BOOTTIME || clock == CLOCK_BOOTTIME_ALARM;
  timespec t = now(clock);
  if ((!boot && clock != CLOCK_MONOTONIC) || !proc.ns(pid, "time")) return t;
  const char* name = boot ? "boottime" : "monotonic";
  const int64_t at = ns(t) + TRY(offset(proc, cat(pid), name)) - TRY(own_offset(proc, name));
  return timespec{at / kSecond, at % kSecond};
}

Result<void> dump_time(uint32_t id, image::Writer& images) {
  pb::timens_entry entry;
  for (auto [clock, out] :
       {std::pair{CLOCK_MONOTONIC, entry.mutable_monotonic()}, std::pair{CLOCK_BOOTTIME, entry.mutable_boottime()}}) {
    const timespec t = now(clock);
    out->set_tv_sec(static_cast<uint64_t>(t.tv_sec));
    out->set_tv_nsec(static_cast<uint64_t>(t.tv_nsec));
  }
  return images.put(image::Kind::kTimens, cat("timens-", id, ".img"), entry);
}

Result<std::optional<Clocks>> load_time(const image::Reader& images, uint32_t id) {
  const std::string name = cat("timens-", id, ".img");
  if (!images.exists(name)) return std::nullopt;
  const auto entries = TRY(images.read_all<pb::timens_entry>(image::Kind::kTimens, name));
  if (entries.empty()) return std::nullopt;
  return Clocks{TRY(checked(entries[0].monotonic(), name)), TRY(checked(entries[0].boottime(), name))};
}

std::optional<NewTime> clocks_behind(const Clocks& at_dump) {
  NewTime time;
  if (ns(now(CLOCK_MONOTONIC)) < ns(at_dump.monotonic)) time.monotonic = at_dump.monotonic;
  if (ns(now(CLOCK_BOOTTIME)) < ns(at_dump.boottime)) time.boottime = at_dump.boottime;
  if (!time.monotonic && !time.boottime) return std::nullopt;
  return time;
}

Result<void> enter_new_time(const procfs::Procfs& proc, const NewTime& time) {
  std::string offsets;
  for (auto [name, clock, wanted] : {std::tuple{"monotonic", CLOCK_MONOTONIC, time.monotonic},
                                     std::tuple{"boottime", CLOCK_BOOTTIME, time.boottime}}) {
    const int64_t own = TRY(own_offset(proc, name));
    offsets += offset_line(name, wanted ? ns(*wanted) - (ns(now(clock)) - own) : own);
  }
  // It is for children, until somebody enters it; then its offsets are settled.
  TRY(kernel::unshare(CLONE_NEWTIME));
  TRY_CTX(write_file_at(proc.fd(), "self/timens_offsets", offsets), "clocks of the time namespace");
  const Fd fd = TRY(open_at(proc.fd(), "self/ns/time_for_children", O_RDONLY));
  return kernel::setns(fd.get(), CLONE_NEWTIME, "the new time namespace");
}

}  // namespace stasis::namespaces
