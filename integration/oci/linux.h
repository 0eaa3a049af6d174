// SPDX-License-Identifier: Apache-2.0
// The two large members of an OCI config.json's linux section: resources and seccomp.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "integration/config/node.h"

namespace stasis::integration::oci {

struct DeviceRule {
  bool allow = false;
  char type = 'a';                      // a c b u p
  std::optional<int64_t> major, minor;  // none: all
  std::string access;                   // some of "rwm"
};

struct DeviceLimit {  // blockIO: a weight, or bytes or operations per second
  int64_t major = 0, minor = 0;
  uint64_t value = 0;
};

struct Memory {
  std::optional<int64_t> limit, reservation, swap, kernel, kernel_tcp;
  std::optional<uint64_t> swappiness;
  std::optional<bool> disable_oom_killer, use_hierarchy, check_before_update;
};

struct Cpu {
  std::optional<uint64_t> shares, period, realtime_period, burst;
  std::optional<int64_t> quota, realtime_runtime, idle;
  std::string cpus, mems;
};

struct Resources {
  std::vector<DeviceRule> devices;
  Memory memory;
  Cpu cpu;
  std::optional<int64_t> pids;
  std::optional<uint64_t> io_weight, io_leaf_weight;
  std::map<std::string, std::vector<DeviceLimit>> io_throttle;  // "throttleReadBpsDevice", ...
  std::map<std::string, uint64_t> huge_pages;                   // "2MB" → bytes
  std::optional<uint64_t> network_class;
  std::map<std::string, uint64_t> network_priorities;
  std::map<std::string, std::map<std::string, uint64_t>> rdma;  // device → hcaHandles, hcaObjects
  std::map<std::string, std::string> unified;                   // file of the cgroup → text
};
Result<Resources> parse_resources(const config::Cursor& at);

struct SeccompArgument {
  uint64_t index = 0, value = 0, value_two = 0;
  std::string op;
};
struct SeccompRule {
  std::vector<std::string> names;
  std::string action;
  std::optional<uint64_t> errno_value;
  std::vector<SeccompArgument> arguments;
};
struct Seccomp {
  std::string default_action;
  std::optional<uint64_t> default_errno;
  std::vector<std::string> architectures, flags;
  std::string listener_path;
  std::vector<SeccompRule> rules;
};
Result<Seccomp> parse_seccomp(const config::Cursor& at);

// Says at debug which keys of a map are not known; the specification wants them ignored.
void note_unknown(const config::Cursor& at, std::initializer_list<std::string_view> known);
// Missing: nothing.
Result<std::optional<int64_t>> maybe_integer(const config::Cursor& at);
Result<std::optional<uint64_t>> maybe_unsigned(const config::Cursor& at);
Result<std::optional<bool>> maybe_boolean(const config::Cursor& at);

}  // namespace stasis::integration::oci
