// SPDX-License-Identifier: Apache-2.0
#include "engine/procfs/cgroup.h"

#include <gtest/gtest.h>

namespace stasis::procfs {
namespace {

TEST(ProcCgroup, LinesOfAllKinds) {
  const auto lines = parse_cgroup(
      "12:cpu,cpuacct:/docker/1:x\n"
      "2:name=systemd:/user.slice\n"
      "1:freezer,name=mix:/\n"
      "0::/user.slice/s.scope (deleted)\n");
  ASSERT_TRUE(lines);
  ASSERT_EQ(lines->size(), 4u);
  EXPECT_EQ((*lines)[0].hierarchy_id, 12);
  EXPECT_EQ((*lines)[0].controllers, (std::vector<std::string>{"cpu", "cpuacct"}));
  EXPECT_EQ((*lines)[0].path, "/docker/1:x") << "a path may hold colons";
  EXPECT_FALSE((*lines)[0].unified());
  EXPECT_EQ((*lines)[1].controllers, std::vector<std::string>{"name=systemd"});
  EXPECT_EQ((*lines)[2].controllers.size(), 2u);
  EXPECT_TRUE((*lines)[3].unified());
  EXPECT_TRUE((*lines)[3].deleted);
  EXPECT_EQ((*lines)[3].path, "/user.slice/s.scope");
}

TEST(ProcCgroup, EmptyTextHasNoLines) { EXPECT_TRUE(parse_cgroup("")->empty()); }

TEST(ProcCgroup, MalformedLinesAreErrors) {
  for (const std::string_view bad : {"0", "0:", "x::/", "-1::/", "0::relative", "1:cpu", "\n\n"}) {
    const auto lines = parse_cgroup(bad);
    ASSERT_FALSE(lines) << bad;
    EXPECT_EQ(lines.error().code(), Code::kCgroup);
  }
}

TEST(ProcCgroup, Controllers) {
  const auto found = parse_cgroups(
      "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
      "cpuset\t3\t1\t1\n"
      "hugetlb\t0\t12\t0\n");
  ASSERT_TRUE(found);
  ASSERT_EQ(found->size(), 2u);
  EXPECT_EQ((*found)[0].name, "cpuset");
  EXPECT_EQ((*found)[0].hierarchy_id, 3);
  EXPECT_TRUE((*found)[0].enabled);
  EXPECT_EQ((*found)[1].cgroups, 12u);
  EXPECT_FALSE((*found)[1].enabled);
  EXPECT_FALSE(parse_cgroups("cpuset 3 1\n"));
  EXPECT_FALSE(parse_cgroups("cpuset 3 one 1\n"));
}

}  // namespace
}  // namespace stasis::procfs
