// SPDX-License-Identifier: Apache-2.0
// An OCI config.json (runtime-spec config.md and config-linux.md), all that concerns Linux.
// Unknown keys are ignored (the spec demands it); a known key of a wrong type is refused.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "integration/config/node.h"
#include "integration/oci/linux.h"

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
  uint64_t console_height = 0, console_width = 0;
  std::string apparmor_profile, selinux_label;
  std::optional<int64_t> oom_score_adj, io_priority;
  std::string io_priority_class, scheduler_policy;
  std::optional<uint32_t> umask;
};

struct Hook {
  std::string point;  // prestart createRuntime createContainer startContainer poststart poststop
  std::string path;   // absolute
  std::vector<std::string> args, env;
  std::optional<int64_t> timeout;
};

struct IdMapping {
  uint32_t container = 0, host = 0, size = 0;
};

struct Mount {
  std::string destination;  // in the container; absolute
  std::string type;         // "" when absent
  std::string source;       // "" when absent; a relative one starts at the bundle
  std::vector<std::string> options;
  std::vector<IdMapping> uid_mappings, gid_mappings;

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
  std::optional<uint32_t> mode, uid, gid;
};

struct Spec {
  std::string version;
  Process process;
  std::string root_path;  // as written; a relative one starts at the bundle
  bool root_readonly = false;
  std::string hostname, domainname;
  std::vector<Mount> mounts;
  std::vector<Namespace> namespaces;
  std::string cgroups_path;
  std::vector<std::string> masked_paths, readonly_paths;
  std::vector<Device> devices;
  std::string rootfs_propagation;
  std::optional<Resources> resources;
  std::optional<Seccomp> seccomp;
  std::vector<IdMapping> uid_mappings, gid_mappings;
  std::map<std::string, std::string> sysctls;
  std::map<std::string, std::pair<int64_t, uint32_t>> time_offsets;  // clock → seconds, nanoseconds
  std::string mount_label, personality, rdt_clos_id;
  std::vector<Hook> hooks;
  std::map<std::string, std::string> annotations;

  const Namespace* find_namespace(std::string_view type) const;
};

// `file` names the text in errors.
Result<Spec> parse_spec(std::string_view json, const std::string& file);
Result<Spec> read_spec(const std::string& path);

}  // namespace stasis::integration::oci
