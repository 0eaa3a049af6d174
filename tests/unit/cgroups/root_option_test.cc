// SPDX-License-Identifier: Apache-2.0
#include "cgroups/root_option.h"

#include <gtest/gtest.h>

#include "tests/unit/cgroups/fake_tree.h"

namespace stasis::cgroups {
namespace {

using Names = std::vector<std::string>;

TEST(CgroupRootOption, Forms) {
  const auto check = [](std::string_view text, const Names& controllers, std::string_view path) {
    const auto root = parse_cgroup_root(text);
    ASSERT_TRUE(root) << text;
    EXPECT_EQ(root->controllers, controllers) << text;
    EXPECT_EQ(root->path, path) << text;
  };
  check("/n", {}, "/n");
  check("cpuacct,cpu:/s", {"cpuacct", "cpu"}, "/s");
  check("name=systemd:/d/", {"name=systemd"}, "/d");
  check(":/x", {}, "/x");
  check("lxc.payload.c1", {}, "/lxc.payload.c1");
  check("hugetlb:lxc.payload.c1", {"hugetlb"}, "/lxc.payload.c1");
  check("/system.slice:docker:1", {}, "/system.slice:docker:1");
  check("memory:/a:b", {"memory"}, "/a:b");
}

TEST(CgroupRootOption, BadOnesAreRefused) {
  for (const std::string_view text : {"", ":", "memory:", "/a/../b", "memory:../x", "cpu/x:/a"}) {
    const auto root = parse_cgroup_root(text);
    ASSERT_FALSE(root) << text;
    EXPECT_EQ(root.error().code(), Code::kCgroupRoot) << text;
  }
}

TEST(CgroupRootOption, RpcEmptyControllerIsTheUnifiedHierarchy) {
  EXPECT_EQ(make_cgroup_root("", "/n")->controllers, Names{""});
  EXPECT_EQ(make_cgroup_root(std::nullopt, "/n")->controllers, Names{});
  EXPECT_EQ(make_cgroup_root("cpu", "/n")->controllers, Names{"cpu"});
}

TEST(CgroupRootOption, UnknownControllerOnlyWhenStrict) {
  const std::vector<Hierarchy> host{v1({"cpu", "cpuacct"}), v2({"hugetlb"})};
  const auto roots = [](std::string_view text) { return std::vector<CgroupRoot>{must(parse_cgroup_root(text))}; };
  const auto bad = check_cgroup_roots(roots("cpu,meemory:/x"), host, true);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code(), Code::kCgroupRoot);
  EXPECT_NE(bad.error().line().find("meemory"), std::string::npos);
  EXPECT_TRUE(check_cgroup_roots(roots("cpu,meemory:/x"), host, false));
  EXPECT_TRUE(check_cgroup_roots(roots("cpuacct,cpu:/x"), host, true));
  EXPECT_TRUE(check_cgroup_roots(roots("hugetlb:/x"), host, true));
  EXPECT_TRUE(check_cgroup_roots({{{""}, "/x"}}, host, true));
  EXPECT_TRUE(check_cgroup_roots(roots("/x"), host, true));
}

TEST(CgroupRootOption, LastOneWinsAndNamedBeatsDefault) {
  const std::vector<CgroupRoot> roots{{{}, "/old"}, {{"memory"}, "/m1"}, {{"memory"}, "/m2"}, {{}, "/n"}};
  EXPECT_EQ(must(root_for(v1({"memory"}), roots)), "/m2");
  EXPECT_EQ(must(root_for(v1({"pids"}), roots)), "/n");
  EXPECT_EQ(must(root_for(v2(), roots)), "/n");
  EXPECT_EQ(must(root_for(v1({"pids"}), {})), std::nullopt);
}

TEST(CgroupRootOption, OneNameDecidesForAJoinedHierarchy) {
  EXPECT_EQ(must(root_for(v1({"cpu", "cpuacct"}), {{{}, "/n"}, {{"cpuacct"}, "/s"}})), "/s");
  const auto clash = root_for(v1({"cpu", "cpuacct"}), {{{"cpu"}, "/a"}, {{"cpuacct"}, "/b"}});
  ASSERT_FALSE(clash);
  EXPECT_EQ(clash.error().code(), Code::kCgroupRoot);
}

TEST(CgroupRootOption, UnifiedByItsControllers) {
  EXPECT_EQ(must(root_for(v2({"cpu", "memory"}), {{{"cpu", "memory"}, "/lxc.payload.c1"}})), "/lxc.payload.c1");
  EXPECT_EQ(must(root_for(v2({"cpu"}), {{{"pids"}, "/x"}})), std::nullopt);
}

}  // namespace
}  // namespace stasis::cgroups
