// SPDX-License-Identifier: Apache-2.0
// What planning needs of an OCI config.json (runtime-spec config.md and config-linux.md).
// Unknown keys are ignored (the spec demands it); a known key of a wrong type is refused.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "integration/config/node.h"

namespace stasis::integration::oci {

struct Rlimit {
  std::string type;  // "RLIMIT_NOFILE"
  uint64_t soft = 0, hard = 0;
};

struct Capabilities {
  std::vector<std::string> bounding, effective, inheritable, permitted, ambient;
};

struct Process {
  bool terminal = false;
  std::vector<std::string> args, env;
  std::string cwd = "/";
  uint32_t uid = 0, gid = 0;
  std::vector<uint32_t> groups;
  Capabilities capabilities;
  std::vector<Rlimit> rlimits;
  bool no_new_privileges = false;
};

struct Mount {
  std::string destination;  // in the container; absolute
  std::string type;         // "" when absent
  std::string source;       // "" when absent; a relative one starts at the bundle
  std::vector<std::string> options;

  bool is_bind() const;  // as runc decides: by type or by option
};

struct Namespace {
  std::string type;  // pid network ipc uts mount user cgroup time
  std::string path;  // "": a new one
};

struct Device {
  std::string path;
  char type = 'c';  // c b u p
  int64_t major = 0, minor = 0;
};

struct Spec {
  std::string version;
  Process process;
  std::string root_path;  // as written; a relative one starts at the bundle
  bool root_readonly = false;
  std::string hostname;
  std::vector<Mount> mounts;
  std::vector<Namespace> namespaces;
  std::string cgroups_path;
  std::vector<std::string> masked_paths, readonly_paths;
  std::vector<Device> devices;
  std::string rootfs_propagation;
  bool has_resources = false;
  bool has_seccomp = false;
  std::vector<std::string> hooks;  // hook points that have at least one hook
  std::map<std::string, std::string> annotations;

  const Namespace* find_namespace(std::string_view type) const;
};

// `file` names the text in errors.
Result<Spec> parse_spec(std::string_view json, const std::string& file);
Result<Spec> read_spec(const std::string& path);

}  // namespace stasis::integration::oci
