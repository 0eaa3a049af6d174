// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/pid_taken.h"

#include <cerrno>

#include "engine/base/io.h"
#include "engine/procfs/procfs.h"

namespace stasis::tasks {

Error pid_taken(int proc, pid_t pid) {
  std::string who;
  if (proc >= 0) {
    const auto text = read_file_at(proc, cat(pid, "/status"));
    const auto status = text ? procfs::parse_status(*text) : std::unexpected(text.error());
    if (!status)
      who = ": no process has it, but a process group or a session";
    else if (status->tgid != pid)
      who = cat(" by a thread \"", status->name, "\" of pid ", status->tgid);
    else
      who = cat(" by \"", status->name, "\", ", status->state == 'Z' ? "a zombie, " : "", "a child of pid ",
                status->ppid);
  }
  return Error(Code::kPidTaken, cat("pid ", pid, " is in use", who)).about(cat("pid ", pid)).with_errno(EEXIST);
}

}  // namespace stasis::tasks
