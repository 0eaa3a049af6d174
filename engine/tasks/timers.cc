// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/timers.h"

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <set>

#include "engine/kernel/syscalls.h"

namespace stasis::tasks {
namespace {

using remote::Batch;

constexpr int kRestoreIds = 77;  // PR_TIMER_CREATE_RESTORE_IDS, Linux 6.15
constexpr size_t kPerBatch = 256;
constexpr int64_t kSecond = 1'000'000'000;

// struct sigevent of the kernel.
struct KernelSigevent {
  uint64_t value;
  int32_t signal, notify, tid, pad[11];
};
static_assert(sizeof(KernelSigevent) == 64);

// Negative clocks name a task, include/linux/posix-timers_types.h: ~pid << 3, and in the low bits 4 for a thread
// and the kind; kind 3 is a clock device. Pid 0 is the caller itself.
bool names_task(int clock) { return clock < 0; }
bool is_device(int clock) { return clock < 0 && (clock & 3) == 3; }
bool is_of_thread(int clock) { return clock < 0 && (clock & 4); }
pid_t task_of(int clock) { return ~(clock >> 3); }

int clock_of(const pb::posix_timer_entry& e) { return static_cast<int>(e.clock_id()); }

int64_t nanoseconds(uint64_t sec, uint64_t nsec) {
  if (sec > static_cast<uint64_t>(std::numeric_limits<int64_t>::max() / kSecond) - 1)
    return std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(sec) * kSecond + static_cast<int64_t>(nsec);
}
int64_t interval_of(const pb::posix_timer_entry& e) { return nanoseconds(e.isec(), e.insec()); }
int64_t left_of(const pb::posix_timer_entry& e) { return nanoseconds(e.vsec(), e.vnsec()); }

itimerspec setting(const pb::posix_timer_entry& e) {
  return {{static_cast<time_t>(e.isec()), static_cast<long>(e.insec())},
          {static_cast<time_t>(e.vsec()), static_cast<long>(e.vnsec())}};
}

Error unsupported(const Process& p, int id, const char* what) {
  return Error(Code::kUnsupported, cat("pid ", p.pid, " has the POSIX timer ", id, " ", what))
      .about(cat("pid ", p.pid));
}

pb::posix_timer_entry describe(const Process& p, const procfs::PosixTimer& timer) {
  pb::posix_timer_entry e;
  e.set_it_id(static_cast<uint32_t>(timer.id));
  e.set_clock_id(static_cast<uint32_t>(timer.clock));
  e.set_si_signo(static_cast<uint32_t>(timer.signal));
  e.set_it_sigev_notify(static_cast<uint32_t>(timer.notify));
  e.set_sival_ptr(timer.value);
  if (timer.notify != SIGEV_THREAD_ID) return e;
  const auto thread = std::ranges::find(p.threads, timer.target, &Thread::tid);
  // A timer whose thread is gone runs on and tells nobody.
  if (thread == p.threads.end())
    e.set_it_sigev_notify(SIGEV_NONE);
  else
    e.set_notify_thread_id(thread->ntid);
  return e;
}

Result<void> check_clock(const Process& p, const procfs::PosixTimer& timer) {
  if (!names_task(timer.clock)) return {};
  if (is_device(timer.clock)) return fail(unsupported(p, timer.id, "on the clock of a device"));
  const pid_t whose = task_of(timer.clock);
  if (whose == 0 || whose == p.npid || std::ranges::find(p.threads, whose, &Thread::ntid) != p.threads.end()) return {};
  return fail(unsupported(p, timer.id, "on the clock of another process"));
}

// Time left, interval and overruns, many timers at once.
Result<void> ask(Process& p, pb::task_timers_entry& timers) {
  for (int first = 0; first < timers.posix_size(); first += static_cast<int>(kPerBatch)) {
    const int end = std::min(timers.posix_size(), first + static_cast<int>(kPerBatch));
    Batch batch;
    std::vector<Batch::Arg> values;
    std::vector<size_t> overruns;
    for (int i = first; i < end; ++i) {
      const uint32_t id = timers.posix(i).it_id();
      values.push_back(batch.space(sizeof(itimerspec)));
      batch.add(__NR_timer_gettime, id, values.back());
      batch.must("timer_gettime");
      overruns.push_back(batch.add(__NR_timer_getoverrun, id));
      batch.must("timer_getoverrun");
    }
    TRY(p.runner->run_checked(batch));
    for (int i = first; i < end; ++i) {
      auto& e = *timers.mutable_posix(i);
      const auto now = batch.get<itimerspec>(values[static_cast<size_t>(i - first)]);
      e.set_isec(static_cast<uint64_t>(now.it_interval.tv_sec));
      e.set_insec(static_cast<uint64_t>(now.it_interval.tv_nsec));
      e.set_vsec(static_cast<uint64_t>(now.it_value.tv_sec));
      e.set_vnsec(static_cast<uint64_t>(now.it_value.tv_nsec));
      e.set_overrun(static_cast<uint32_t>(batch.result(overruns[static_cast<size_t>(i - first)])));
    }
  }
  return {};
}

// Which of these timers count the CPU time of this thread: theirs goes on while it, and nobody else, runs.
Result<std::vector<uint32_t>> counted_by(Process& p, pid_t tid, const std::vector<uint32_t>& ids) {
  std::vector<uint32_t> found;
  for (size_t first = 0; first < ids.size(); first += kPerBatch) {
    const size_t end = std::min(ids.size(), first + kPerBatch);
    Batch batch;
    std::vector<Batch::Arg> before, after;
    for (auto* values : {&before, &after}) {
      for (size_t i = first; i < end; ++i) {
        values->push_back(batch.space(sizeof(itimerspec)));
        batch.add(__NR_timer_gettime, ids[i], values->back());
        batch.must("timer_gettime");
      }
      for (int i = 0; i < 200; ++i) batch.add(__NR_getppid);
    }
    TRY(p.runner->run_checked(batch, tid));
    for (size_t i = first; i < end; ++i) {
      const auto a = batch.get<itimerspec>(before[i - first]), b = batch.get<itimerspec>(after[i - first]);
      if (a.it_value.tv_sec != b.it_value.tv_sec || a.it_value.tv_nsec != b.it_value.tv_nsec) found.push_back(ids[i]);
    }
  }
  return found;
}

// "The CPU clock of the calling thread" is kept as such: which thread called is not shown anywhere.
Result<void> find_owners(Process& p, const pb::task_timers_entry& timers, std::vector<pb::task_extra>& extras) {
  std::vector<uint32_t> unknown;
  Batch start, stop;
  for (const auto& e : timers.posix()) {
    if (!is_of_thread(clock_of(e)) || task_of(clock_of(e)) != 0) continue;
    unknown.push_back(e.it_id());
    if (left_of(e) != 0) continue;
    // A timer that is not armed has no time left to look at: it is armed for this look.
    start.add(__NR_timer_settime, e.it_id(), 0, start.put(itimerspec{{0, 0}, {1'000'000'000, 0}}), 0);
    stop.add(__NR_timer_settime, e.it_id(), 0, stop.put(itimerspec{}), 0);
  }
  if (unknown.empty() || p.threads.size() == 1) return {};
  TRY(p.runner->run(start));
  for (size_t i = 0; i < p.threads.size() && !unknown.empty(); ++i) {
    if (p.threads[i].exited) continue;
    for (uint32_t id : TRY(counted_by(p, p.threads[i].tid, unknown))) {
      extras[i].add_own_timers(id);
      std::erase(unknown, id);
    }
  }
  TRY(p.runner->run(stop));
  if (!unknown.empty())
    return fail(unsupported(p, static_cast<int>(unknown.front()), "on the CPU clock of a thread that cannot be told"));
  return {};
}

KernelSigevent event_of(const pb::posix_timer_entry& e) {
  return {.value = e.sival_ptr(),
          .signal = static_cast<int32_t>(e.si_signo()),
          .notify = static_cast<int32_t>(e.it_sigev_notify()),
          .tid = e.notify_thread_id()};
}

// Before 6.15 every timer gets the next number, which begins at 0: made and deleted until the wanted one comes.
Result<void> count_up_to(Driven& d, pid_t tid, const pb::posix_timer_entry& e, uint32_t& next) {
  constexpr uint32_t kMost = 4'000'000;  // numbers of 1 s
  const uint32_t wanted = e.it_id();
  if (wanted - next > kMost)
    return fail(Error(Code::kKernelFeature, cat("a POSIX timer with the number ", wanted, " needs Linux 6.15"))
                    .about(cat("pid ", d.image->node.pid())));
  while (next < wanted) {
    Batch batch;
    const auto id = batch.space(4), event = batch.put(KernelSigevent{.notify = SIGEV_NONE});
    const uint32_t end = std::min(wanted, next + 1000);
    for (; next < end; ++next) {
      batch.add(__NR_timer_create, CLOCK_MONOTONIC, event, id);
      batch.must("timer_create");
      batch.add(__NR_timer_delete, next);
      batch.must("timer_delete");
    }
    TRY(d.runner.run_checked(batch, tid));
  }
  return {};
}

Result<void> create_one(Driven& d, pid_t tid, const pb::posix_timer_entry& e) {
  Batch batch;
  const auto id = batch.put(e.it_id());
  batch.add(__NR_timer_create, clock_of(e), batch.put(event_of(e)), id);
  batch.must(cat("timer_create on clock ", clock_of(e)));
  TRY(d.runner.run_checked(batch, tid));
  if (batch.get<uint32_t>(id) == e.it_id()) return {};
  return fail(Code::kRestoreFailed,
              cat("a POSIX timer got the number ", batch.get<uint32_t>(id), " instead of ", e.it_id()));
}

// The kernel brings these clocks' time on by itself, and their past can be named.
bool runs_by_itself(const pb::posix_timer_entry& e) {
  const int clock = clock_of(e);
  return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME || clock == CLOCK_TAI;
}

bool tells(const pb::posix_timer_entry& e) { return e.it_sigev_notify() != SIGEV_NONE; }

pid_t told_thread(const Driven& d, const pb::posix_timer_entry& e) {
  if (e.it_sigev_notify() != SIGEV_THREAD_ID) return d.tids.front();
  const auto at = std::ranges::find(d.image->tids, static_cast<uint32_t>(e.notify_thread_id()));
  return d.tids[static_cast<size_t>(at - d.image->tids.begin())];
}

// Arms a timer as one that began so long ago that it has expired `overruns` times more than once, with its next
// expiry where it belongs. False if the clock was not running yet then.
Result<bool> arm_in_the_past(remote::Runner& runner, const pb::posix_timer_entry& e, int64_t overruns) {
  Batch look;
  const auto at = look.space(sizeof(timespec));
  look.add(__NR_clock_gettime, clock_of(e), at);
  look.must("clock_gettime");
  TRY(runner.run_checked(look));
  const auto now = look.get<timespec>(at);
  int64_t first = 1;
  if (const int64_t interval = interval_of(e); interval > 0) {
    int64_t back = 0, next = 0;
    if (__builtin_mul_overflow(interval, overruns + 1, &back) ||
        __builtin_add_overflow(now.tv_sec * kSecond + now.tv_nsec, left_of(e), &next) || next - back < 1)
      return false;
    first = next - back;
  }
  Batch batch;
  itimerspec value = setting(e);
  value.it_value = {first / kSecond, first % kSecond};
  batch.add(__NR_timer_settime, e.it_id(), TIMER_ABSTIME, batch.put(value), 0);
  batch.must("timer_settime");
  TRY(runner.run_checked(batch));
  return true;
}

Result<void> await_expiry(pid_t tid, bool shared, const pb::posix_timer_entry& e) {
  for (int round = 0; round < 5000; ++round) {
    for (const auto& queued : TRY(kernel::peek_signals(tid, shared)))
      if (queued.si_code == SI_TIMER && static_cast<uint32_t>(queued.si_timerid) == e.it_id()) return {};
    const timespec nap{0, 1'000'000};
    ::nanosleep(&nap, nullptr);
  }
  return fail(Code::kRestoreFailed, cat("POSIX timer ", e.it_id(), " does not expire"));
}

// timer_getoverrun(2) tells of the last signal that was taken: one is sent and taken.
Result<void> give_overrun(Driven& d, const pb::posix_timer_entry& e) {
  const std::string name = cat("pid ", d.image->node.pid(), ": POSIX timer ", e.it_id());
  if (!runs_by_itself(e) || !tells(e) || interval_of(e) == 0 || !TRY(arm_in_the_past(d.runner, e, e.overrun()))) {
    log::warning(name, ": its last overrun count, ", e.overrun(), ", cannot be kept, ignoring");
    return {};
  }
  Batch batch;
  const uint64_t set = uint64_t{1} << (e.si_signo() - 1);
  const size_t got =
      batch.add(__NR_rt_sigtimedwait, batch.put(set), batch.space(sizeof(siginfo_t)), batch.put(timespec{5, 0}), 8);
  TRY(d.runner.run(batch, told_thread(d, e)));
  if (batch.failed(got)) return fail(Code::kRestoreFailed, cat(name, " does not expire"));
  d.armed_timers.insert(e.it_id());
  return {};
}

siginfo_t info_of(const pb::siginfo_entry& entry) {
  siginfo_t info{};
  std::memcpy(&info, entry.siginfo().data(), std::min(entry.siginfo().size(), sizeof(info)));
  return info;
}

int count_signal(const pb::signal_queue_entry& queue, int signal) {
  return static_cast<int>(
      std::ranges::count_if(queue.signals(), [&](const auto& s) { return info_of(s).si_signo == signal; }));
}

// How often a timer has expired since its signal was queued is told only to who takes the signal: it is taken, and the
// timer set back to when it began, so that it expires again at once with the same count.
Result<void> count_overruns(Process& p, pid_t tid, bool shared, const pb::posix_timer_entry& e,
                            pb::siginfo_entry& entry) {
  Batch take;
  const uint64_t set = uint64_t{1} << (e.si_signo() - 1);
  const auto at = take.space(sizeof(siginfo_t)), left = take.space(sizeof(itimerspec));
  const size_t got = take.add(__NR_rt_sigtimedwait, take.put(set), at, take.put(timespec{}), 8);
  take.add(__NR_timer_gettime, e.it_id(), left);
  take.must("timer_gettime");
  TRY(p.runner->run_checked(take, tid));
  if (take.failed(got)) return {};
  const auto info = take.get<siginfo_t>(at);
  entry.set_siginfo(&info, sizeof(info));
  pb::posix_timer_entry now = e;
  const auto value = take.get<itimerspec>(left).it_value;
  now.set_vsec(static_cast<uint64_t>(value.tv_sec)), now.set_vnsec(static_cast<uint64_t>(value.tv_nsec));
  if (TRY(arm_in_the_past(*p.runner, now, info.si_overrun))) return await_expiry(tid, shared, e);
  Batch back;
  if (shared)
    back.add(__NR_rt_sigqueueinfo, p.npid, info.si_signo, back.put(info));
  else
    back.add(__NR_rt_tgsigqueueinfo, p.npid, std::ranges::find(p.threads, tid, &Thread::tid)->ntid, info.si_signo,
             back.put(info));
  back.must("queue a signal again");
  return p.runner->run_checked(back, tid);
}

// Only where the signal that is taken can be no other one.
Result<void> count_pending(Process& p, std::vector<pb::core_entry>& cores) {
  const auto& timers = cores.front().tc().timers().posix();
  auto look = [&](pb::signal_queue_entry& queue, size_t thread, bool shared) -> Result<void> {
    for (auto& entry : *queue.mutable_signals()) {
      const auto info = info_of(entry);
      if (info.si_code != SI_TIMER) continue;
      const auto at = std::ranges::find(timers, static_cast<uint32_t>(info.si_timerid), &pb::posix_timer_entry::it_id);
      if (at == timers.end() || interval_of(*at) == 0) continue;
      const bool alone =
          count_signal(queue, info.si_signo) == 1 &&
          count_signal(shared ? cores[0].thread_core().signals_p() : cores[0].tc().signals_s(), info.si_signo) == 0;
      if (alone && runs_by_itself(*at))
        TRY(count_overruns(p, p.threads[thread].tid, shared, *at, entry));
      else
        log::warning("pid ", p.pid, ": the overruns of POSIX timer ", at->it_id(),
                     " since its signal was queued cannot be told, ignoring");
    }
    return {};
  };
  TRY(look(*cores[0].mutable_tc()->mutable_signals_s(), 0, true));
  for (size_t i = p.threads.front().exited; i < p.threads.size(); ++i)
    TRY(look(*cores[i].mutable_thread_core()->mutable_signals_p(), i, false));
  return {};
}

}  // namespace

Result<void> dump_posix_timers(const procfs::Procfs& proc, Process& p, std::vector<pb::core_entry>& cores,
                               std::vector<pb::task_extra>& extras) {
  auto found = TRY(procfs::parse_timers(TRY(proc.text(p.pid, "timers"))));
  if (found.empty()) return {};
  // Ascending, which is what a kernel without PR_TIMER_CREATE_RESTORE_IDS can make.
  std::ranges::sort(found, {}, &procfs::PosixTimer::id);
  auto& timers = *cores.front().mutable_tc()->mutable_timers();
  for (const auto& timer : found) {
    TRY(check_clock(p, timer));
    *timers.add_posix() = describe(p, timer);
  }
  TRY(ask(p, timers));
  TRY(find_owners(p, timers, extras));
  return count_pending(p, cores);
}

Result<void> check_posix_timers(const pb::task_timers_entry& timers, const std::vector<uint32_t>& tids,
                                const std::string& name) {
  auto corrupt = [&](uint32_t id, const char* what) {
    return fail(Error(Code::kImageCorrupt, cat(name, ": POSIX timer ", id, " has a wrong ", what)).about(name));
  };
  std::set<uint32_t> ids;
  for (const auto& e : timers.posix()) {
    const uint32_t id = e.it_id();
    if (id > static_cast<uint32_t>(std::numeric_limits<int>::max()) || !ids.insert(id).second)
      return corrupt(id, "number");
    const uint32_t how = e.it_sigev_notify();
    if (how != SIGEV_SIGNAL && how != SIGEV_NONE && how != SIGEV_THREAD && how != SIGEV_THREAD_ID)
      return corrupt(id, "way to notify");
    if (e.si_signo() > 64 || (e.si_signo() == 0 && how != SIGEV_NONE)) return corrupt(id, "signal");
    if (how == SIGEV_THREAD_ID && std::ranges::find(tids, static_cast<uint32_t>(e.notify_thread_id())) == tids.end())
      return corrupt(id, "thread");
    if (is_device(clock_of(e))) return corrupt(id, "clock");
    constexpr uint64_t kMostSeconds = uint64_t{1} << 62;
    if (e.insec() >= kSecond || e.vnsec() >= kSecond || e.isec() > kMostSeconds || e.vsec() > kMostSeconds)
      return corrupt(id, "time");
    if (e.overrun() > static_cast<uint32_t>(std::numeric_limits<int>::max())) return corrupt(id, "overrun count");
  }
  return {};
}

Result<void> create_posix_timers(Driven& d) {
  std::vector<const pb::posix_timer_entry*> timers;
  for (const auto& e : d.image->tc().timers().posix()) timers.push_back(&e);
  if (timers.empty()) return {};
  std::ranges::sort(timers, {}, [](const auto* e) { return e->it_id(); });
  Batch begin;
  const size_t on = begin.add(__NR_prctl, kRestoreIds, 1, 0, 0, 0);
  TRY(d.runner.run(begin));
  const bool by_number = !begin.failed(on);
  uint32_t next = 0;
  for (const auto* e : timers) {
    pid_t tid = d.tids.front();
    for (size_t i = 0; i < d.tids.size(); ++i)
      if (d.image->extras[i] && std::ranges::count(d.image->extras[i]->own_timers(), e->it_id())) tid = d.tids[i];
    if (!by_number) TRY(count_up_to(d, tid, *e, next));
    TRY(create_one(d, tid, *e));
    next = e->it_id() + 1;
  }
  if (by_number) {
    Batch end;
    end.add(__NR_prctl, kRestoreIds, 0, 0, 0, 0);
    end.must("prctl(PR_TIMER_CREATE_RESTORE_IDS)");
    TRY(d.runner.run_checked(end));
  }
  for (const auto* e : timers)
    if (e->overrun() > 0) TRY(give_overrun(d, *e));
  return {};
}

Result<bool> expire_again(Driven& d, const siginfo_t& info) {
  if (info.si_code != SI_TIMER) return false;
  const auto& timers = d.image->tc().timers().posix();
  const auto at = std::ranges::find(timers, static_cast<uint32_t>(info.si_timerid), &pb::posix_timer_entry::it_id);
  if (at == timers.end() || static_cast<int>(at->si_signo()) != info.si_signo || !tells(*at) || !runs_by_itself(*at))
    return false;
  const pid_t tid = told_thread(d, *at);
  const bool shared = at->it_sigev_notify() != SIGEV_THREAD_ID;
  if (!TRY(arm_in_the_past(d.runner, *at, std::max(info.si_overrun, 0)))) return false;
  TRY(await_expiry(tid, shared, *at));
  d.armed_timers.insert(at->it_id());
  return true;
}

Result<void> arm_posix_timers(Driven& d) {
  Batch batch;
  for (const auto& e : d.image->tc().timers().posix()) {
    if (left_of(e) == 0 || d.armed_timers.contains(e.it_id())) continue;
    batch.add(__NR_timer_settime, e.it_id(), 0, batch.put(setting(e)), 0);
    batch.must(cat("timer_settime of timer ", e.it_id()));
    if (batch.size() < kPerBatch) continue;
    TRY(d.runner.run_checked(batch));
    batch = Batch();
  }
  return d.runner.run_checked(batch);
}

}  // namespace stasis::tasks
