// SPDX-License-Identifier: Apache-2.0
#include "cgroups/properties.h"

#include <algorithm>

namespace stasis::cgroups {

namespace {

constexpr std::string_view kUnlimited = "9223372036854771712";  // PAGE_COUNTER_MAX pages of 4 KiB

constexpr Property kCommonV1[] = {
    {"cgroup.clone_children", Form::kValue, "0"},
    {"notify_on_release", Form::kValue, "0"},
    {"cgroup.procs", Form::kOwnerOnly},
    {"tasks", Form::kOwnerOnly},
};
constexpr Property kCpuset[] = {
    {"cpuset.cpus"},
    {"cpuset.mems"},
    {"cpuset.cpu_exclusive", Form::kValue, "0"},
    {"cpuset.mem_exclusive", Form::kValue, "0"},
    {"cpuset.mem_hardwall", Form::kValue, "0"},
    {"cpuset.memory_migrate", Form::kValue, "0"},
    {"cpuset.memory_spread_page", Form::kValue, "0"},
    {"cpuset.memory_spread_slab", Form::kValue, "0"},
    {"cpuset.sched_load_balance", Form::kValue, "1"},
    {"cpuset.sched_relax_domain_level", Form::kValue, "-1"},
};
// The period bounds the quota, and an idle group refuses shares.
constexpr Property kCpu[] = {
    {"cpu.shares", Form::kValue, "1024"},
    {"cpu.cfs_period_us", Form::kValue, "100000"},
    {"cpu.cfs_quota_us", Form::kValue, "-1"},
    {"cpu.cfs_burst_us", Form::kValue, "0"},
    {"cpu.rt_period_us", Form::kValue, "1000000"},
    {"cpu.rt_runtime_us", Form::kValue, "0"},
    {"cpu.uclamp.min", Form::kValue, "0.00"},
    {"cpu.uclamp.max", Form::kValue, "max"},
    {"cpu.idle", Form::kValue, "0"},
};
// use_hierarchy and oom_control want a group without children; memsw may not be below the limit.
constexpr Property kMemory[] = {
    {"memory.use_hierarchy", Form::kValue, "1"},
    {"memory.limit_in_bytes", Form::kValue, kUnlimited},
    {"memory.memsw.limit_in_bytes", Form::kValue, kUnlimited},
    {"memory.soft_limit_in_bytes", Form::kValue, kUnlimited},
    {"memory.kmem.tcp.limit_in_bytes", Form::kValue, kUnlimited},
    {"memory.swappiness", Form::kValue, "60"},
    {"memory.move_charge_at_immigrate", Form::kValue, "0"},
    {"memory.oom_control", Form::kOomControl, "0"},
};
constexpr Property kBlkio[] = {
    {"blkio.weight", Form::kValue, "500"},
    {"blkio.weight_device", Form::kPerLine},
    {"blkio.leaf_weight", Form::kValue, "500"},
    {"blkio.leaf_weight_device", Form::kPerLine},
    {"blkio.bfq.weight", Form::kValue, "100"},
    {"blkio.bfq.weight_device", Form::kPerLine},
    {"blkio.throttle.read_bps_device", Form::kPerLine},
    {"blkio.throttle.write_bps_device", Form::kPerLine},
    {"blkio.throttle.read_iops_device", Form::kPerLine},
    {"blkio.throttle.write_iops_device", Form::kPerLine},
};
constexpr Property kPids[] = {{"pids.max", Form::kValue, "max"}};
constexpr Property kDevices[] = {{"devices.list", Form::kDevices, "a *:* rwm"}};
constexpr Property kFreezer[] = {{"freezer.state", Form::kFreezer, "THAWED"}};
constexpr Property kNetCls[] = {{"net_cls.classid", Form::kValue, "0"}};
constexpr Property kNetPrio[] = {{"net_prio.ifpriomap", Form::kPerLine}};
constexpr Property kHugetlb[] = {
    {"hugetlb.*.limit_in_bytes", Form::kValue, "9223372036854771712"},
};
constexpr Property kRdma[] = {{"rdma.max", Form::kPerLine}};
constexpr Property kMisc[] = {{"misc.max", Form::kPerLine}};

constexpr Property kUnified[] = {
    {"cgroup.type", Form::kValue, "domain"},
    {"cgroup.max.descendants", Form::kValue, "max"},
    {"cgroup.max.depth", Form::kValue, "max"},
    {"cpuset.cpus", Form::kValue, ""},
    {"cpuset.mems", Form::kValue, ""},
    {"cpuset.cpus.exclusive", Form::kValue, ""},
    {"cpuset.cpus.partition", Form::kValue, "member"},
    {"cpu.weight", Form::kValue, "100"},
    {"cpu.max", Form::kValue, "max 100000"},
    {"cpu.max.burst", Form::kValue, "0"},
    {"cpu.uclamp.min", Form::kValue, "0.00"},
    {"cpu.uclamp.max", Form::kValue, "max"},
    {"cpu.idle", Form::kValue, "0"},
    {"memory.max", Form::kValue, "max"},
    {"memory.high", Form::kValue, "max"},
    {"memory.low", Form::kValue, "0"},
    {"memory.min", Form::kValue, "0"},
    {"memory.swap.max", Form::kValue, "max"},
    {"memory.swap.high", Form::kValue, "max"},
    {"memory.zswap.max", Form::kValue, "max"},
    {"memory.zswap.writeback", Form::kValue, "1"},
    {"memory.oom.group", Form::kValue, "0"},
    {"io.weight", Form::kPerLine, "default 100"},
    {"io.bfq.weight", Form::kPerLine, "default 100"},
    {"io.max", Form::kPerLine, ""},
    {"io.latency", Form::kPerLine, ""},
    {"pids.max", Form::kValue, "max"},
    {"hugetlb.*.max", Form::kValue, "max"},
    {"rdma.max", Form::kPerLine, ""},
    {"misc.max", Form::kPerLine, ""},
    {"cgroup.procs", Form::kOwnerOnly},
    {"cgroup.threads", Form::kOwnerOnly},
    {"cgroup.subtree_control", Form::kFlagWords, ""},
    {"cgroup.freeze", Form::kFreezer, "0"},
};

struct Table {
  std::string_view controller;
  std::span<const Property> properties;
};
constexpr Table kTables[] = {
    {"cpuset", kCpuset},    {"cpu", kCpu},         {"memory", kMemory},   {"blkio", kBlkio},
    {"pids", kPids},        {"devices", kDevices}, {"freezer", kFreezer}, {"net_cls", kNetCls},
    {"net_prio", kNetPrio}, {"hugetlb", kHugetlb}, {"rdma", kRdma},       {"misc", kMisc},
};

void append(std::vector<const Property*>& out, std::span<const Property> table) {
  for (const Property& property : table) out.push_back(&property);
}

}  // namespace

std::vector<const Property*> properties_of(std::span<const std::string> controllers) {
  std::vector<const Property*> out;
  if (controllers.empty() || (controllers.size() == 1 && controllers.front().empty())) {
    append(out, kUnified);
    return out;
  }
  append(out, kCommonV1);
  for (const Table& table : kTables)
    if (std::ranges::find(controllers, table.controller) != controllers.end()) append(out, table.properties);
  return out;
}

std::vector<const Property*> properties_of(const Hierarchy& hierarchy) { return properties_of(hierarchy.controllers); }

bool matches(const Property& property, std::string_view name) {
  const size_t star = property.name.find('*');
  if (star == std::string_view::npos) return property.name == name;
  const auto head = property.name.substr(0, star), tail = property.name.substr(star + 1);
  return name.size() > head.size() + tail.size() && name.starts_with(head) && name.ends_with(tail) &&
         name.find('/') == std::string_view::npos;
}

const Property* find_property(std::span<const Property* const> tables, std::string_view name) {
  for (const Property* property : tables)
    if (matches(*property, name)) return property;
  return nullptr;
}

std::string_view controller_of(std::string_view property_name) {
  const auto head = property_name.substr(0, property_name.find('.'));
  return head == "cgroup" ? std::string_view() : head;
}

bool is_initial(const Property& property, std::string_view value) {
  if (value.empty() || value == property.initial) return true;
  // Other page sizes round "no limit" differently; old images say -1.
  if (property.initial == kUnlimited) {
    const auto number = parse_int<long long>(value);
    return number && (*number < 0 || *number >= 0x7fffffff00000000);
  }
  return false;
}

}  // namespace stasis::cgroups
