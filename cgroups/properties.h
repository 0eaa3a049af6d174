// SPDX-License-Identifier: Apache-2.0
// The control files that are a cgroup's configuration: one table per controller, in the order of writing.
// Kernel: admin-guide/cgroup-v1/*.rst, admin-guide/cgroup-v2.rst. What is not in a table is never written.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cgroups/hierarchy.h"

namespace stasis::cgroups {

enum class Form {
  kValue,       // one write
  kPerLine,     // one write per line: "8:0 1048576"
  kFlagWords,   // cgroup.subtree_control: "cpu memory" -> "+cpu +memory"
  kDevices,     // devices.list: "a" to devices.deny, then each line to devices.allow
  kOomControl,  // the first number of memory.oom_control
  kFreezer,     // never written with the others
  kOwnerOnly,   // only owner and mode: who may move tasks
};

struct Property {
  std::string_view name;  // "hugetlb.*.max": any one file with this head and tail
  Form form = Form::kValue;
  std::string_view initial = {};  // of a new cgroup: needs no writing where the file is absent or refuses
};

// The tables that apply to a hierarchy, in order. For the unified one: all of v2.
std::vector<const Property*> properties_of(const Hierarchy& hierarchy);
// Tables by names as in an image ("cpu","cpuacct"; "" is v2), to know which belong to which hierarchy.
std::vector<const Property*> properties_of(std::span<const std::string> controllers);
// The rank of a property in writing order and its table line; nullptr: unknown.
const Property* find_property(std::span<const Property* const> tables, std::string_view name);
bool matches(const Property& property, std::string_view name);
// "memory" of "memory.max": the controller a v2 parent must hand out; "" for cgroup.*.
std::string_view controller_of(std::string_view property_name);
// Is `value` what a new cgroup has anyhow?
bool is_initial(const Property& property, std::string_view value);

}  // namespace stasis::cgroups
