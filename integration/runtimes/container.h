// SPDX-License-Identifier: Apache-2.0
// A container as its runtime recorded it: who it is, not how it looks inside.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"

namespace stasis::integration::runtimes {

struct Container {
  std::string id;
  std::string runtime;  // "runc", "crun", "podman", "lxc"
  std::string state_dir;
  pid_t pid = 0;
  uint64_t start_time = 0;  // clock ticks since boot, as in /proc/PID/stat; 0: not recorded
  std::string bundle;       // directory with config.json; lxc: the container's directory
  std::string config;       // the description the container was started from, a file
  std::string rootfs;
  std::string cgroup_path;                             // the same in all hierarchies; empty: not recorded
  std::map<std::string, std::string> cgroup_dirs;      // controller ("" = unified) → directory on the host
  std::map<std::string, std::string> namespace_paths;  // "NEWPID" → "/proc/PID/ns/pid"
  std::vector<std::string> stdio;                      // link texts of descriptors 0, 1, 2
};

struct FindOptions {
  std::string root;                   // the runtime's own --root or -P; empty: where it looks by itself
  std::string proc;                   // another directory in place of proc(5), for tests
  std::string host;                   // a directory in place of / for the usual places, for tests
  std::string lxc_info = "lxc-info";  // the program that asks LXC's monitor
};

// The names `find` knows, in the order it looks.
std::vector<std::string> known_runtimes();

// `runtime` empty: all are looked at, and the name must be one container's only (else kUsage).
// kNoContainer when there is none of this name, or its process is gone or was replaced;
// kBadDescription when its record cannot be read.
Result<Container> find(const std::string& runtime, const std::string& id, const FindOptions& options);

}  // namespace stasis::integration::runtimes
