// SPDX-License-Identifier: Apache-2.0
// timerfd_create(2): clock, time left, interval, expirations not read. A timer with an absolute time goes off at that
// time on the container's clock, wherever that has got to; the manifest has it. One with a relative time has as much
// left as it had.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "engine/files/kind.h"
#include "engine/namespaces/time.h"
#include "engine/procfs/fdinfo.h"

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

namespace stasis::files {
namespace {

constexpr uint32_t kKnownFlags = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET;
constexpr uint64_t kSecond = 1'000'000'000, kMaxSeconds = INT64_MAX / kSecond;

bool is_zero(const timespec& t) { return t.tv_sec == 0 && t.tv_nsec == 0; }

bool matches(const Candidate& c) { return c.link == "anon_inode:[timerfd]"; }

Result<void> check(const Candidate& c, const DumpEnv&) {
  TRY(check_owner(c));
  const auto timer = TRY(procfs::parse_timer(c.info));
  if ((timer.settime & TFD_TIMER_CANCEL_ON_SET) && is_zero(timer.interval) && !is_zero(timer.left) && timer.ticks)
    return unsupported(c, "is a timerfd that a change of the clock has cancelled, and nobody has read that yet");
  return {};
}

// A periodic timer rests from its expiry until somebody asks it (fs/timerfd.c timerfd_tmrproc): only then does the
// kernel count what it has missed.
Result<procfs::TimerInfo> read_timer(const Candidate& c, const DumpEnv& env) {
  auto timer = TRY(procfs::parse_timer(c.info));
  while (!is_zero(timer.interval) && is_zero(timer.left) && timer.ticks) {
    itimerspec now{};
    if (::timerfd_gettime(c.copy.get(), &now) < 0) return fail_sys("timerfd_gettime", c.name());
    timer = TRY(procfs::parse_timer(TRY(env.proc.fdinfo(c.pid, c.fd))));
  }
  return timer;
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  const auto timer = TRY(read_timer(c, env));
  entry.set_type(pb::TIMERFD);
  auto& t = *entry.mutable_tfd();
  t.set_id(entry.id());
  t.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  set_no_owner(t.mutable_fown());
  t.set_clockid(timer.clock), t.set_ticks(timer.ticks), t.set_settime_flags(timer.settime);
  t.set_vsec(static_cast<uint64_t>(timer.left.tv_sec)), t.set_vnsec(static_cast<uint64_t>(timer.left.tv_nsec));
  t.set_isec(static_cast<uint64_t>(timer.interval.tv_sec)), t.set_insec(static_cast<uint64_t>(timer.interval.tv_nsec));
  if (!(timer.settime & TFD_TIMER_ABSTIME) || is_zero(timer.left)) return {};
  const auto now = TRY(namespaces::now_of(env.proc, env.root_pid, static_cast<clockid_t>(timer.clock)));
  const int64_t nsec = now.tv_nsec + timer.left.tv_nsec, second = static_cast<int64_t>(kSecond);
  pb::event_extra extra;
  extra.set_file_id(entry.id());
  extra.set_expires_sec(now.tv_sec + timer.left.tv_sec + nsec / second);
  extra.set_expires_nsec(static_cast<uint32_t>(nsec % second));
  out.images->add_event_extra(extra);
  return {};
}

// When it is to go off, for timerfd_settime() with the flags of the image.
timespec first_expiry(const pb::file_entry& entry, const RestoreEnv& env) {
  const auto& t = entry.tfd();
  const timespec left{static_cast<time_t>(t.vsec()), static_cast<long>(t.vnsec())};
  if (is_zero(left) || !(t.settime_flags() & TFD_TIMER_ABSTIME)) return left;
  if (const auto* extra = find_event_extra(env.manifest, entry.id()); extra && extra->has_expires_sec())
    return {extra->expires_sec(), static_cast<long>(extra->expires_nsec())};
  timespec now{};
  ::clock_gettime(static_cast<clockid_t>(t.clockid()), &now);
  const long nsec = now.tv_nsec + left.tv_nsec, second = static_cast<long>(kSecond);
  return {now.tv_sec + left.tv_sec + nsec / second, nsec % second};
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  const auto& t = entry.tfd();
  Fd fd(::timerfd_create(static_cast<int>(t.clockid()), TFD_CLOEXEC));
  if (!fd) return fail_sys("timerfd_create", cat("clock ", t.clockid()));
  const itimerspec value{{static_cast<time_t>(t.isec()), static_cast<long>(t.insec())}, first_expiry(entry, env)};
  if (::timerfd_settime(fd.get(), static_cast<int>(t.settime_flags()), &value, nullptr) < 0)
    return fail_sys("timerfd_settime");
  // Setting the time has made them zero.
  if (const uint64_t ticks = t.ticks(); ticks && ::ioctl(fd.get(), TFD_IOC_SET_TICKS, &ticks) < 0)
    return fail_sys("ioctl(TFD_IOC_SET_TICKS)");
  TRY(set_flags(fd.get(), t.flags(), "timerfd"));
  return fd;
}

Result<void> check_image(const pb::file_entry& entry, const FileEntries&, const image::Reader& images) {
  if (!entry.has_tfd()) return corrupt_file(entry.id(), "is no timerfd");
  const auto& t = entry.tfd();
  const auto* extra = find_event_extra(images.manifest(), entry.id());
  const bool clock =
      t.clockid() <= CLOCK_MONOTONIC || (t.clockid() >= CLOCK_BOOTTIME && t.clockid() <= CLOCK_BOOTTIME_ALARM);
  if (!clock || (t.settime_flags() & ~kKnownFlags)) return corrupt_file(entry.id(), "is a timerfd of an unknown kind");
  if (t.vnsec() >= kSecond || t.insec() >= kSecond || t.vsec() > kMaxSeconds || t.isec() > kMaxSeconds ||
      (extra && (extra->expires_nsec() >= kSecond || extra->expires_sec() < 0 ||
                 static_cast<uint64_t>(extra->expires_sec()) > 2 * kMaxSeconds)))
    return corrupt_file(entry.id(), "is a timerfd with an impossible time");
  return {};
}

}  // namespace

const FileKind kTimerfd = {.name = "timerfd",
                           .type = pb::TIMERFD,
                           .matches = matches,
                           .check = check,
                           .dump = dump,
                           .restore = restore,
                           .check_image = check_image};

}  // namespace stasis::files
