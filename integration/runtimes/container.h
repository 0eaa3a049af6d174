// SPDX-License-Identifier: Apache-2.0
// A container as its runtime recorded it: who it is, not how it looks inside.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/base/result.h"

namespace stasis::integration::runtimes {

struct Container {
  std::string id;
  std::string runtime;  // "runc"
  std::string state_dir;
  pid_t pid = 0;
  uint64_t start_time = 0;  // clock ticks since boot, as in /proc/PID/stat
  std::string bundle;       // directory with config.json
  std::string rootfs;
  std::map<std::string, std::string> cgroup_dirs;      // controller ("" = unified) → directory on the host
  std::map<std::string, std::string> namespace_paths;  // "NEWPID" → "/proc/PID/ns/pid"
  std::vector<std::string> stdio;                      // link texts of descriptors 0, 1, 2
};

struct FindOptions {
  std::string root;  // the runtime's --root; empty: where it looks by itself
  std::string proc;  // another directory in place of proc(5), for tests
};

// kNoContainer when there is none of this name, or its process is gone or was replaced.
Result<Container> find(const std::string& runtime, const std::string& id, const FindOptions& options);

}  // namespace stasis::integration::runtimes
