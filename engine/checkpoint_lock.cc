// SPDX-License-Identifier: Apache-2.0
#include "engine/checkpoint_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

namespace stasis {

Result<Fd> lock_checkpoint(const procfs::Procfs& proc, pid_t root) {
  // 0400, and opening it has no effect on the task.
  auto file = proc.open_file(root, "personality", O_RDONLY);
  if (!file) {
    const int cause = file.error().sys_errno();
    if (cause == ENOENT || cause == ESRCH) return Fd();
    return fail(std::move(file).error());
  }
  int status;
  do status = ::flock(file->get(), LOCK_EX | LOCK_NB);
  while (status < 0 && errno == EINTR);
  if (status == 0) return std::move(*file);
  if (errno == EWOULDBLOCK)
    return fail(
        Error(Code::kBusy, cat("pid ", root, " is being checkpointed by another engine")).about(cat("pid ", root)));
  return fail_sys("lock", cat("pid ", root));
}

}  // namespace stasis
