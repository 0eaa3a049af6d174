// SPDX-License-Identifier: Apache-2.0
#include "integration/oci/linux.h"

#include <algorithm>

#include "engine/base/log.h"

namespace stasis::integration::oci {
namespace {

using config::Cursor;

Result<DeviceRule> parse_device_rule(const Cursor& at) {
  DeviceRule out;
  out.allow = TRY(TRY(at.get("allow")).boolean());
  const Cursor type = TRY(at.get("type")), access = TRY(at.get("access"));
  const std::string letter = TRY(type.string_or("a"));
  if (letter.size() != 1 || !std::string_view("acbup").contains(letter[0]))
    return fail(type.error(cat("unknown device type ", json_quote(letter))));
  out.type = letter[0];
  out.major = TRY(maybe_integer(TRY(at.get("major"))));
  out.minor = TRY(maybe_integer(TRY(at.get("minor"))));
  out.access = TRY(access.string_or(""));
  if (out.access.find_first_not_of("rwm") != std::string::npos)
    return fail(access.error(cat("expected some of r, w and m, found ", json_quote(out.access))));
  return out;
}

Result<Memory> parse_memory(const Cursor& at) {
  Memory out;
  out.limit = TRY(maybe_integer(TRY(at.get("limit"))));
  out.reservation = TRY(maybe_integer(TRY(at.get("reservation"))));
  out.swap = TRY(maybe_integer(TRY(at.get("swap"))));
  out.kernel = TRY(maybe_integer(TRY(at.get("kernel"))));
  out.kernel_tcp = TRY(maybe_integer(TRY(at.get("kernelTCP"))));
  out.swappiness = TRY(maybe_unsigned(TRY(at.get("swappiness"))));
  out.disable_oom_killer = TRY(maybe_boolean(TRY(at.get("disableOOMKiller"))));
  out.use_hierarchy = TRY(maybe_boolean(TRY(at.get("useHierarchy"))));
  out.check_before_update = TRY(maybe_boolean(TRY(at.get("checkBeforeUpdate"))));
  note_unknown(at, {"limit", "reservation", "swap", "kernel", "kernelTCP", "swappiness", "disableOOMKiller",
                    "useHierarchy", "checkBeforeUpdate"});
  return out;
}

Result<Cpu> parse_cpu(const Cursor& at) {
  Cpu out;
  out.shares = TRY(maybe_unsigned(TRY(at.get("shares"))));
  out.period = TRY(maybe_unsigned(TRY(at.get("period"))));
  out.realtime_period = TRY(maybe_unsigned(TRY(at.get("realtimePeriod"))));
  out.burst = TRY(maybe_unsigned(TRY(at.get("burst"))));
  out.quota = TRY(maybe_integer(TRY(at.get("quota"))));
  out.realtime_runtime = TRY(maybe_integer(TRY(at.get("realtimeRuntime"))));
  out.idle = TRY(maybe_integer(TRY(at.get("idle"))));
  out.cpus = TRY(TRY(at.get("cpus")).string_or(""));
  out.mems = TRY(TRY(at.get("mems")).string_or(""));
  note_unknown(at, {"shares", "period", "realtimePeriod", "burst", "quota", "realtimeRuntime", "idle", "cpus", "mems"});
  return out;
}

Result<DeviceLimit> parse_device_limit(const Cursor& at, const char* value) {
  DeviceLimit out;
  out.major = TRY(TRY(at.get("major")).integer());
  out.minor = TRY(TRY(at.get("minor")).integer());
  out.value = TRY(maybe_unsigned(TRY(at.get(value)))).value_or(0);
  return out;
}

Result<void> parse_block_io(const Cursor& at, Resources& out) {
  out.io_weight = TRY(maybe_unsigned(TRY(at.get("weight"))));
  out.io_leaf_weight = TRY(maybe_unsigned(TRY(at.get("leafWeight"))));
  for (const char* key : {"weightDevice", "throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice",
                          "throttleWriteIOPSDevice"})
    for (const Cursor& item : TRY(TRY(at.get(key)).list()))
      out.io_throttle[key].push_back(
          TRY(parse_device_limit(item, key == std::string_view("weightDevice") ? "weight" : "rate")));
  note_unknown(at, {"weight", "leafWeight", "weightDevice", "throttleReadBpsDevice", "throttleWriteBpsDevice",
                    "throttleReadIOPSDevice", "throttleWriteIOPSDevice"});
  return {};
}

Result<void> parse_network(const Cursor& at, Resources& out) {
  out.network_class = TRY(maybe_unsigned(TRY(at.get("classID"))));
  for (const Cursor& item : TRY(TRY(at.get("priorities")).list()))
    out.network_priorities[TRY(TRY(item.get("name")).string())] = TRY(TRY(item.get("priority")).unsigned_integer());
  note_unknown(at, {"classID", "priorities"});
  return {};
}

Result<SeccompRule> parse_seccomp_rule(const Cursor& at) {
  SeccompRule out;
  const Cursor names = TRY(at.get("names"));
  out.names = TRY(names.strings());
  if (out.names.empty()) return fail(names.error("names no system call"));
  out.action = TRY(TRY(at.get("action")).string());
  out.errno_value = TRY(maybe_unsigned(TRY(at.get("errnoRet"))));
  for (const Cursor& item : TRY(TRY(at.get("args")).list())) {
    SeccompArgument argument;
    const Cursor index = TRY(item.get("index"));
    argument.index = TRY(index.unsigned_integer());
    if (argument.index > 5) return fail(index.error("a system call has six arguments"));
    argument.value = TRY(TRY(item.get("value")).unsigned_integer());
    argument.value_two = TRY(maybe_unsigned(TRY(item.get("valueTwo")))).value_or(0);
    argument.op = TRY(TRY(item.get("op")).string());
    out.arguments.push_back(std::move(argument));
  }
  return out;
}

}  // namespace

void note_unknown(const Cursor& at, std::initializer_list<std::string_view> known) {
  if (!at.present()) return;
  for (const auto& [key, child] : at.node()->entries())
    if (std::find(known.begin(), known.end(), key) == known.end())
      log::debug("description ", at.path(), ": unknown key ", json_quote(key), ", ignoring");
}

Result<std::optional<int64_t>> maybe_integer(const Cursor& at) {
  if (!at.present()) return std::optional<int64_t>();
  return std::optional(TRY(at.integer()));
}

Result<std::optional<uint64_t>> maybe_unsigned(const Cursor& at) {
  if (!at.present()) return std::optional<uint64_t>();
  return std::optional(TRY(at.unsigned_integer()));
}

Result<std::optional<bool>> maybe_boolean(const Cursor& at) {
  if (!at.present()) return std::optional<bool>();
  return std::optional(TRY(at.boolean()));
}

Result<Resources> parse_resources(const Cursor& at) {
  Resources out;
  for (const Cursor& item : TRY(TRY(at.get("devices")).list())) out.devices.push_back(TRY(parse_device_rule(item)));
  out.memory = TRY(parse_memory(TRY(at.get("memory"))));
  out.cpu = TRY(parse_cpu(TRY(at.get("cpu"))));
  out.pids = TRY(maybe_integer(TRY(TRY(at.get("pids")).get("limit"))));
  TRY(parse_block_io(TRY(at.get("blockIO")), out));
  for (const Cursor& item : TRY(TRY(at.get("hugepageLimits")).list()))
    out.huge_pages[TRY(TRY(item.get("pageSize")).string())] = TRY(TRY(item.get("limit")).unsigned_integer());
  TRY(parse_network(TRY(at.get("network")), out));
  for (const auto& [device, limits] : TRY(TRY(at.get("rdma")).map()))
    for (const auto& [name, value] : TRY(limits.map())) out.rdma[device][name] = TRY(value.unsigned_integer());
  for (auto& [file, text] : TRY(TRY(at.get("unified")).string_map())) out.unified[file] = text;
  note_unknown(at, {"devices", "memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma", "unified"});
  return out;
}

Result<Seccomp> parse_seccomp(const Cursor& at) {
  Seccomp out;
  out.default_action = TRY(TRY(at.get("defaultAction")).string());
  out.default_errno = TRY(maybe_unsigned(TRY(at.get("defaultErrnoRet"))));
  out.architectures = TRY(TRY(at.get("architectures")).strings());
  out.flags = TRY(TRY(at.get("flags")).strings());
  out.listener_path = TRY(TRY(at.get("listenerPath")).string_or(""));
  for (const Cursor& item : TRY(TRY(at.get("syscalls")).list())) out.rules.push_back(TRY(parse_seccomp_rule(item)));
  note_unknown(at, {"defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata",
                    "syscalls"});
  return out;
}

}  // namespace stasis::integration::oci
