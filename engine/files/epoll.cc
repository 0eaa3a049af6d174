// SPDX-License-Identifier: Apache-2.0
// epoll(7). An entry is known to the kernel by an open file description and the number it had when it was added; the
// number may be closed or somebody else's by now. kcmp(2) tells the description; on restore it is put under the number
// for a moment. An entry that was there already when it is added again reports what is ready once more: an edge may be
// seen twice, and is never lost.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/kernel/syscalls.h"
#include "engine/procfs/fdinfo.h"

namespace stasis::files {
namespace {

constexpr uint32_t kPrivate = EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP;  // fs/eventpoll.c EP_PRIVATE_BITS
constexpr uint32_t kAnything = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM | EPOLLRDHUP;
constexpr uint32_t kMaxNumber = 1u << 20;

bool matches(const Candidate& c) { return c.link == "anon_inode:[eventpoll]"; }

Result<void> check(const Candidate& c, const DumpEnv&) {
  TRY(check_owner(c));
  TRY(procfs::parse_epoll(c.info));
  // struct epoll_params, since Linux 6.9
  uint64_t busy_poll = 0;
  if (::ioctl(c.copy.get(), _IOR(0x8A, 0x02, uint64_t), &busy_poll) == 0 && busy_poll != 0)
    return unsupported(c, "is an epoll with busy polling (EPIOCSPARAMS)");
  return {};
}

Result<void> dump(const Candidate& c, const DumpEnv&, DumpOutput&, pb::file_entry& entry) {
  entry.set_type(pb::EVENTPOLL);
  auto& epoll = *entry.mutable_epfd();
  epoll.set_id(entry.id());
  epoll.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  set_no_owner(epoll.mutable_fown());
  for (const auto& e : TRY(procfs::parse_epoll(c.info))) {
    auto& tfd = *epoll.add_tfd();
    tfd.set_id(entry.id());
    tfd.set_tfd(static_cast<uint32_t>(e.number));
    tfd.set_events(e.events), tfd.set_data(e.data);
    tfd.set_dev(e.dev), tfd.set_inode(e.inode), tfd.set_pos(e.pos);
  }
  return {};
}

// Finds descriptors of what epolls watch: by number in the epoll's own task, by number elsewhere, anywhere.
class Targets {
 public:
  explicit Targets(const DumpOutput& out) : out_(out) {
    for (const auto& d : out.descriptors) by_number_.emplace(d.fd, &d);
  }

  // `nth`: of the entries that were added under this number. Null: nobody has a descriptor of it.
  Result<const Descriptor*> find(const Descriptor& epoll, int number, uint32_t nth) const {
    const kernel::EpollSlot slot{static_cast<uint32_t>(epoll.fd), static_cast<uint32_t>(number), nth};
    const auto [begin, end] = by_number_.equal_range(number);
    for (const bool own : {true, false})
      for (auto at = begin; at != end; ++at)
        if ((at->second->pid == epoll.pid) == own && TRY(same(*at->second, epoll, slot))) return at->second;
    for (const bool own : {true, false})
      for (const auto& d : out_.descriptors)
        if ((d.pid == epoll.pid) == own && TRY(same(d, epoll, slot))) return &d;
    return nullptr;
  }

 private:
  static Result<bool> same(const Descriptor& d, const Descriptor& epoll, const kernel::EpollSlot& slot) {
    const int r = kernel::kcmp(d.pid, epoll.pid, kernel::Kcmp::kEpollTfd, static_cast<unsigned long>(d.fd),
                               reinterpret_cast<unsigned long>(&slot));
    if (r >= 0) return r == 0;
    errno = -r;
    return fail_sys("kcmp(KCMP_EPOLL_TFD)", cat("pid ", epoll.pid, " fd ", epoll.fd));
  }

  const DumpOutput& out_;
  std::multimap<int, const Descriptor*> by_number_;
};

Result<bool> is_idle(const Descriptor& epoll) {
  const Fd pidfd = TRY(kernel::pidfd_open(epoll.pid));
  const Fd copy = TRY(kernel::pidfd_getfd(pidfd.get(), epoll.fd));
  pollfd item{copy.get(), POLLIN, 0};
  if (::poll(&item, 1, 0) < 0) return fail_sys("poll", "epoll");
  return (item.revents & POLLIN) == 0;
}

Result<void> find_targets(const Targets& targets, const Descriptor& epoll, pb::file_entry& file, DumpOutput& out) {
  pb::event_extra extra;
  extra.set_file_id(file.id());
  extra.set_idle(TRY(is_idle(epoll)));
  std::map<uint32_t, uint32_t> seen;  // entries by number
  for (auto& tfd : *file.mutable_epfd()->mutable_tfd()) {
    const auto number = static_cast<int>(tfd.tfd());
    const auto* target = TRY(targets.find(epoll, number, seen[tfd.tfd()]++));
    if (!target)
      return fail(Error(Code::kUnsupportedFile,
                        cat("pid ", epoll.pid, " fd ", epoll.fd, " (epoll) watches what was its descriptor ", number,
                            ", and is open in no task of the container any more"))
                      .about(cat("pid ", epoll.pid, " fd ", epoll.fd)));
    extra.add_targets(target->id);
    extra.add_numbers(tfd.tfd());
    // Who knows nothing of the manifest finds the target by this number among the task's descriptors.
    if (target->pid == epoll.pid) tfd.set_tfd(static_cast<uint32_t>(target->fd));
  }
  out.images->add_event_extra(extra);
  return {};
}

Result<void> find_all_targets(const DumpEnv&, DumpOutput& out) {
  std::map<uint32_t, const Descriptor*> holders;
  for (const auto& d : out.descriptors) holders.try_emplace(d.id, &d);
  std::optional<Targets> targets;
  for (auto& file : out.files) {
    if (file.type() != pb::EVENTPOLL) continue;
    if (!targets) targets.emplace(out);
    TRY(find_targets(*targets, *holders.at(file.id()), file, out));
  }
  return {};
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv&) {
  Fd fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!fd) return fail_sys("epoll_create1");
  TRY(set_flags(fd.get(), entry.epfd().flags(), "epoll"));
  return fd;
}

struct Entry {
  int number = 0;
  uint32_t target = 0;  // file id
  uint32_t events = 0;
  uint64_t data = 0;
  bool armed() const { return (events & ~kPrivate) != 0; }
};

// CRIU's images say only a number: that of a descriptor of a task that has the epoll.
Result<uint32_t> target_of(const pb::file_entry& epoll, uint32_t number, const RestoreEnv& env) {
  for (const auto& table : env.tables) {
    if (std::ranges::none_of(*table.fds, [&](const auto& e) { return e.id() == epoll.id(); })) continue;
    for (const auto& e : *table.fds)
      if (e.fd() == number) return e.id();
  }
  return corrupt_file(epoll.id(), cat("is an epoll that watches descriptor ", number, ", which no task has"));
}

Result<std::vector<Entry>> entries_of(const pb::file_entry& epoll, const RestoreEnv& env) {
  const auto* extra = find_event_extra(env.manifest, epoll.id());
  std::vector<Entry> out;
  for (int i = 0; i < epoll.epfd().tfd_size(); ++i) {
    const auto& tfd = epoll.epfd().tfd(i);
    Entry e{static_cast<int>(tfd.tfd()), 0, tfd.events(), tfd.data()};
    if (extra && i < extra->targets_size())
      e.target = extra->targets(i), e.number = static_cast<int>(extra->numbers(i));
    else
      e.target = TRY(target_of(epoll, tfd.tfd(), env));
    out.push_back(e);
  }
  return out;
}

// A descriptor under a number that may be taken, as long as this lives.
class At {
 public:
  static Result<At> put(int fd, int number) {
    At at(number);
    if (::fcntl(number, F_GETFD) >= 0) at.before_ = TRY(dup_at_least(number));
    if (fd != number && ::dup3(fd, number, O_CLOEXEC) < 0) return fail_sys("dup3", cat("descriptor ", number));
    return at;
  }
  At(At&& o) noexcept : number_(std::exchange(o.number_, -1)), before_(std::move(o.before_)) {}
  At& operator=(At&&) = delete;
  ~At() {
    if (number_ < 0) return;
    if (before_)
      ::dup3(before_.get(), number_, O_CLOEXEC);
    else
      ::close(number_);
  }

 private:
  explicit At(int number) : number_(number) {}
  int number_;
  Fd before_;
};

Result<void> add(int epoll, int target, const Entry& e) {
  Fd other;
  if (epoll == e.number) other = TRY(dup_at_least(epoll)), epoll = other.get();
  const auto at = TRY(At::put(target, e.number));
  epoll_event event{e.events, {.u64 = e.data}};
  // A disarmed entry is given something to report, which disarms it again: EPOLL_CTL_ADD always arms.
  if (!e.armed()) event.events |= kAnything;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, e.number, &event) < 0)
    return fail_sys(Code::kRestoreFailed, "epoll_ctl(EPOLL_CTL_ADD)", cat("descriptor ", e.number));
  if (e.armed()) return {};
  epoll_event got{};
  if (::epoll_wait(epoll, &got, 1, 0) == 1) return {};
  event.events = e.events;
  if (::epoll_ctl(epoll, EPOLL_CTL_MOD, e.number, &event) < 0)
    return fail_sys(Code::kRestoreFailed, "epoll_ctl(EPOLL_CTL_MOD)", cat("descriptor ", e.number));
  return {};
}

// Comes back as it was, so that it has no edge that it had not before.
bool stays_as_it_is(pb::fd_types type) { return type == pb::PIPE || type == pb::EVENTFD; }

Result<void> connect_one(const pb::file_entry& epoll, RestoreEnv& env) {
  const auto* extra = find_event_extra(env.manifest, epoll.id());
  const bool idle = extra && extra->idle();
  const int fd = env.numbers.at(epoll.id());
  const auto entries = TRY(entries_of(epoll, env));
  auto known = [&](const Entry& e) {
    return idle && (e.events & (EPOLLET | EPOLLONESHOT)) == EPOLLET && stays_as_it_is(env.files.at(e.target).type());
  };
  // What reports at once is added while the epoll has nothing else to report, and taken out of it.
  for (const auto& e : entries)
    if (!e.armed() && !is_late_pidfd(env.files.at(e.target), env)) TRY(add(fd, env.numbers.at(e.target), e));
  for (const auto& e : entries) {
    if (!e.armed() || !known(e)) continue;
    TRY(add(fd, env.numbers.at(e.target), e));
    epoll_event got{};
    (void)::epoll_wait(fd, &got, 1, 0);
  }
  for (const auto& e : entries)
    if (e.armed() && !known(e) && !is_late_pidfd(env.files.at(e.target), env))
      TRY(add(fd, env.numbers.at(e.target), e));
  return {};
}

// What watches a pidfd that is there only now: in the root task, whose own descriptors have to step aside.
Result<void> watch_pidfds(uint32_t pid, const std::vector<pb::fdinfo_entry>& fds, const RestoreEnv& env,
                          remote::Batch& batch) {
  if (pid != env.tables.front().pid) return {};
  for (const auto& [id, file] : env.files) {
    if (file.type() != pb::EVENTPOLL) continue;
    for (const auto& e : TRY(entries_of(file, env))) {
      if (!is_late_pidfd(env.files.at(e.target), env)) continue;
      if (!e.armed()) log::warning("an epoll's spent one-shot entry for a pidfd is armed again, ignoring");
      const int epoll = env.numbers.at(id), target = env.numbers.at(e.target);
      if (e.number >= std::min(epoll, target))
        return fail(Code::kRestoreFailed, cat("an epoll watches a pidfd by a number as high as ", e.number));
      const auto own = std::ranges::find_if(fds, [&](const auto& f) { return static_cast<int>(f.fd()) == e.number; });
      const int kept = free_numbers(fds).first;
      if (own != fds.end()) batch.add(__NR_dup, e.number), batch.must("dup");
      batch.add(__NR_dup3, target, e.number, O_CLOEXEC), batch.must("dup3 of a pidfd");
      batch.add(__NR_epoll_ctl, epoll, EPOLL_CTL_ADD, e.number, batch.put(epoll_event{e.events, {.u64 = e.data}}));
      batch.must("epoll_ctl(EPOLL_CTL_ADD) of a pidfd");
      if (own == fds.end()) {
        batch.add(__NR_close, e.number);
        continue;
      }
      batch.add(__NR_dup3, kept, e.number, own->flags() & FD_CLOEXEC ? O_CLOEXEC : 0);
      batch.must("dup3");
      batch.add(__NR_close, kept);
    }
  }
  return {};
}

Result<void> connect_all(RestoreEnv& env) {
  for (const auto& [id, file] : env.files)
    if (file.type() == pb::EVENTPOLL) TRY(connect_one(file, env));
  return {};
}

Result<void> check_image(const pb::file_entry& entry, const FileEntries& files, const image::Reader& images) {
  if (!entry.has_epfd()) return corrupt_file(entry.id(), "is no epoll");
  const auto& epoll = entry.epfd();
  for (const auto& tfd : epoll.tfd())
    if (tfd.tfd() > kMaxNumber) return corrupt_file(entry.id(), cat("is an epoll that watches descriptor ", tfd.tfd()));
  const auto* extra = find_event_extra(images.manifest(), entry.id());
  if (!extra) return {};
  if (extra->targets_size() != epoll.tfd_size() || extra->numbers_size() != epoll.tfd_size())
    return corrupt_file(entry.id(), "is an epoll with another number of entries in the manifest");
  for (const uint32_t target : extra->targets())
    if (!files.contains(target)) return corrupt_file(entry.id(), cat("is an epoll that watches a file ", target));
  for (const uint32_t number : extra->numbers())
    if (number > kMaxNumber) return corrupt_file(entry.id(), cat("is an epoll that watches descriptor ", number));
  return {};
}

}  // namespace

const FileKind kEpoll = {.name = "epoll",
                         .type = pb::EVENTPOLL,
                         .matches = matches,
                         .check = check,
                         .dump = dump,
                         .restore = restore,
                         .finish_dump = find_all_targets,
                         .connect = connect_all,
                         .late = watch_pidfds,
                         .check_image = check_image};

}  // namespace stasis::files
