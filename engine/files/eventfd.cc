// SPDX-License-Identifier: Apache-2.0
// eventfd(2): counter and flags. EFD_SEMAPHORE is in the manifest.
#include "engine/files/eventfd.h"

#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/procfs/fdinfo.h"

namespace stasis::files {
namespace {

bool matches(const Candidate& c) { return c.link == "anon_inode:[eventfd]"; }

Result<void> check(const Candidate& c, const DumpEnv&) { return check_owner(c); }

Result<uint64_t> read_counter(int fd, bool& empty) {
  uint64_t value = 0;
  iovec part{&value, sizeof value};
  // Whether the descriptor blocks is the task's business: RWF_NOWAIT.
  empty = false;
  const ssize_t n = ::preadv2(fd, &part, 1, -1, RWF_NOWAIT);
  if (n < 0 && errno == EAGAIN) empty = true;
  if (n != sizeof value && !empty) return fail_sys("read", "eventfd");
  return value;
}

Result<void> add(int fd, uint64_t value) {
  return value ? write_full(fd, &value, sizeof value, "eventfd") : Result<void>();
}

Result<void> dump(const Candidate& c, const DumpEnv&, DumpOutput& out, pb::file_entry& entry) {
  const uint64_t counter = TRY(procfs::number(c.info, "eventfd-count", 16));
  const bool told = procfs::field(c.info, "eventfd-semaphore").has_value();
  const bool semaphore =
      told ? TRY(procfs::number(c.info, "eventfd-semaphore")) != 0 : TRY(is_semaphore(c.copy.get(), counter));
  entry.set_type(pb::EVENTFD);
  auto& efd = *entry.mutable_efd();
  efd.set_id(entry.id());
  efd.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  set_no_owner(efd.mutable_fown());
  efd.set_counter(counter);
  if (!semaphore) return {};
  pb::event_extra extra;
  extra.set_file_id(entry.id());
  extra.set_semaphore(true);
  out.images->add_event_extra(extra);
  return {};
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  const auto* extra = find_event_extra(env.manifest, entry.id());
  Fd fd(::eventfd(0, EFD_CLOEXEC | (extra && extra->semaphore() ? EFD_SEMAPHORE : 0)));
  if (!fd) return fail_sys("eventfd");
  TRY(add(fd.get(), entry.efd().counter()));
  TRY(set_flags(fd.get(), entry.efd().flags(), "eventfd"));
  return fd;
}

Result<void> check_image(const pb::file_entry& entry, const FileEntries&, const image::Reader&) {
  if (!entry.has_efd()) return corrupt_file(entry.id(), "is no eventfd");
  if (entry.efd().counter() == ~uint64_t{0})
    return corrupt_file(entry.id(), "is an eventfd with an impossible counter");
  return {};
}

}  // namespace

Result<bool> is_semaphore(int fd, uint64_t counter) {
  // With 2 and more a read tells: a semaphore gives 1.
  if (counter < 2) TRY(add(fd, 2 - counter));
  bool empty = false;
  const uint64_t got = TRY(read_counter(fd, empty));
  const bool semaphore = got == 1;
  if (counter >= 2) {
    TRY(add(fd, got));
  } else if (semaphore) {
    if (counter == 0) TRY(read_counter(fd, empty));
  } else {
    TRY(add(fd, counter));
  }
  return semaphore;
}

const FileKind kEventfd = {.name = "eventfd",
                           .type = pb::EVENTFD,
                           .matches = matches,
                           .check = check,
                           .dump = dump,
                           .restore = restore,
                           .check_image = check_image};

}  // namespace stasis::files
