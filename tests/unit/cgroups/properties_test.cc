// SPDX-License-Identifier: Apache-2.0
#include "cgroups/properties.h"

#include <gtest/gtest.h>

#include "tests/unit/cgroups/fake_tree.h"

namespace stasis::cgroups {
namespace {

size_t rank(const std::vector<const Property*>& tables, std::string_view name) {
  for (size_t i = 0; i < tables.size(); ++i)
    if (matches(*tables[i], name)) return i;
  ADD_FAILURE() << name << " is in no table";
  return 0;
}

TEST(CgroupProperties, OrderOfWriting) {
  const auto memory = properties_of(v1({"memory"}));
  EXPECT_LT(rank(memory, "memory.limit_in_bytes"), rank(memory, "memory.memsw.limit_in_bytes"));
  const auto cpu = properties_of(v1({"cpu", "cpuacct"}));
  EXPECT_LT(rank(cpu, "cpu.cfs_period_us"), rank(cpu, "cpu.cfs_quota_us"));
  EXPECT_LT(rank(cpu, "cpu.shares"), rank(cpu, "cpu.idle"));
  const auto unified = properties_of(v2());
  EXPECT_LT(rank(unified, "memory.max"), rank(unified, "cgroup.subtree_control"));
}

TEST(CgroupProperties, TablesBelongToTheirController) {
  const auto pids = properties_of(v1({"pids"}));
  EXPECT_NE(find_property(pids, "pids.max"), nullptr);
  EXPECT_NE(find_property(pids, "notify_on_release"), nullptr);
  EXPECT_EQ(find_property(pids, "memory.limit_in_bytes"), nullptr);
  EXPECT_EQ(find_property(properties_of(v2()), "devices.list"), nullptr);
}

TEST(CgroupProperties, FilesThatDoThingsAreInNoTable) {
  for (const Hierarchy& hierarchy : {v1({"memory"}), v1({"devices"}), v1({"name=systemd"}), v2()})
    for (const std::string_view name : {"release_agent", "cgroup.event_control", "cgroup.kill", "memory.force_empty",
                                        "devices.allow", "memory.reclaim", "../x/memory.max"})
      EXPECT_EQ(find_property(properties_of(hierarchy), name), nullptr) << name;
}

TEST(CgroupProperties, Patterns) {
  const auto hugetlb = properties_of(v1({"hugetlb"}));
  EXPECT_NE(find_property(hugetlb, "hugetlb.2MB.limit_in_bytes"), nullptr);
  EXPECT_NE(find_property(hugetlb, "hugetlb.1GB.rsvd.limit_in_bytes"), nullptr);
  EXPECT_EQ(find_property(hugetlb, "hugetlb.2MB.usage_in_bytes"), nullptr);
  EXPECT_EQ(find_property(hugetlb, "hugetlb.x/y.limit_in_bytes"), nullptr);
  EXPECT_EQ(find_property(hugetlb, "hugetlb.limit_in_bytes"), nullptr);
}

TEST(CgroupProperties, InitialValues) {
  const auto memory = properties_of(v1({"memory"}));
  const Property& limit = *find_property(memory, "memory.limit_in_bytes");
  EXPECT_TRUE(is_initial(limit, "9223372036854771712"));
  EXPECT_TRUE(is_initial(limit, "9223372036854710272"));  // 64 KiB pages
  EXPECT_TRUE(is_initial(limit, "-1"));
  EXPECT_FALSE(is_initial(limit, "104857600"));
  EXPECT_EQ(controller_of("memory.swap.max"), "memory");
  EXPECT_EQ(controller_of("cgroup.max.depth"), "");
}

}  // namespace
}  // namespace stasis::cgroups
