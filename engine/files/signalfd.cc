// SPDX-License-Identifier: Apache-2.0
// signalfd(2): its mask. The signals are in the queues of whoever reads.
#include <fcntl.h>

#include "engine/files/kind.h"
#include "engine/kernel/syscalls.h"
#include "engine/procfs/fdinfo.h"

namespace stasis::files {
namespace {

bool matches(const Candidate& c) { return c.link == "anon_inode:[signalfd]"; }

Result<void> check(const Candidate& c, const DumpEnv&) { return check_owner(c); }

Result<void> dump(const Candidate& c, const DumpEnv&, DumpOutput&, pb::file_entry& entry) {
  entry.set_type(pb::SIGNALFD);
  auto& fd = *entry.mutable_sgfd();
  fd.set_id(entry.id());
  fd.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  set_no_owner(fd.mutable_fown());
  fd.set_signal_mask(TRY(procfs::number(c.info, "sigmask", 16)));
  return {};
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv&) {
  Fd fd = TRY(kernel::signalfd(entry.sgfd().signal_mask()));
  TRY(set_flags(fd.get(), entry.sgfd().flags(), "signalfd"));
  return fd;
}

Result<void> check_image(const pb::file_entry& entry, const FileEntries&, const image::Reader&) {
  return entry.has_sgfd() ? Result<void>() : corrupt_file(entry.id(), "is no signalfd");
}

}  // namespace

const FileKind kSignalfd = {.name = "signalfd",
                            .type = pb::SIGNALFD,
                            .matches = matches,
                            .check = check,
                            .dump = dump,
                            .restore = restore,
                            .check_image = check_image};

}  // namespace stasis::files
