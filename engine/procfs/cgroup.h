// SPDX-License-Identifier: Apache-2.0
// /proc/PID/cgroup (cgroups(7), kernel/cgroup/cgroup.c proc_cgroup_show) and /proc/cgroups.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::procfs {

// One line "ID:CONTROLLERS:PATH".
struct CgroupLine {
  int hierarchy_id = 0;                  // 0: the unified (v2) hierarchy
  std::vector<std::string> controllers;  // "cpu", "name=systemd"; empty for the unified one
  std::string path;                      // as seen from the reader's cgroup namespace; "/.." outside of it
  bool deleted = false;                  // " (deleted)" was cut off: the directory is gone
  bool unified() const { return hierarchy_id == 0 && controllers.empty(); }
};

// One line of /proc/cgroups: a controller the kernel was built with.
struct CgroupSubsystem {
  std::string name;
  int hierarchy_id = 0;  // 0: in the unified hierarchy, or nowhere
  unsigned long cgroups = 0;
  bool enabled = false;
};

Result<std::vector<CgroupLine>> parse_cgroup(std::string_view text);
Result<std::vector<CgroupSubsystem>> parse_cgroups(std::string_view text);

// `task` is "self", "PID" or "PID/task/TID", below the proc directory `proc_fd`.
Result<std::vector<CgroupLine>> read_cgroup(int proc_fd, const std::string& task);
// The same below the /proc of the engine.
Result<std::vector<CgroupLine>> read_cgroup(const std::string& task);
// Texts for rooms that hand them to the parsers.
Result<std::string> read_self_cgroup_text();
Result<std::string> read_self_mountinfo();
// Ids of the threads that live of a process of the engine's /proc.
Result<std::vector<pid_t>> read_thread_ids(pid_t pid);
// /proc/PID/ns/cgroup of the engine's /proc, for setns(2).
Result<Fd> open_cgroup_namespace(const std::string& task);

}  // namespace stasis::procfs
