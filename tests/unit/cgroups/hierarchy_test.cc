// SPDX-License-Identifier: Apache-2.0
// Captured texts: a hybrid host with separate controllers, Debian 10 (v1, joined), Debian 12 (v2).
#include "cgroups/hierarchy.h"

#include <gtest/gtest.h>

#include "tests/unit/cgroups/fake_tree.h"

namespace stasis::cgroups {
namespace {

constexpr std::string_view kHybridCgroup =
    "9:name=systemd:/\n5:devices:/\n4:memory:/process_api/4640\n2:cpuacct:/\n1:cpu:/\n0::/\n";
constexpr std::string_view kHybridMounts =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
    "90 60 0:33 /c1 /run/bundle/rootfs/sys/fs/cgroup/devices ro - cgroup cgroup rw,devices\n";

TEST(Hierarchies, HybridHost) {
  const auto found = must(parse_hierarchies(kHybridCgroup, kHybridMounts));
  ASSERT_EQ(found.size(), 6u);
  EXPECT_EQ(found[0].name(), "name=systemd");
  EXPECT_EQ(found[0].mount_point, "/sys/fs/cgroup/systemd");
  EXPECT_EQ(found[1].mount_point, "") << "a mount of a subdirectory is not the hierarchy";
  EXPECT_EQ(found[3].mount_point, "/sys/fs/cgroup/cpuacct") << "cpu must not match cpuacct";
  EXPECT_EQ(found[4].mount_point, "/sys/fs/cgroup/cpu");
  EXPECT_EQ(found[4].mount_id, 32);
  EXPECT_TRUE(found[5].unified);
  EXPECT_EQ(found[5].name(), "");
  EXPECT_EQ(found[5].mount_point, "/sys/fs/cgroup/unified");
}

TEST(Hierarchies, CoveredMountIsPassedOver) {
  const auto found = must(parse_hierarchies("4:memory:/\n",
                                            "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                                            "50 35 0:32 /sub /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                                            "51 31 0:32 / /mnt/memory rw - cgroup cgroup rw,memory\n"));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].mount_point, "/mnt/memory");
}

TEST(Hierarchies, JoinedControllers) {
  const auto found =
      must(parse_hierarchies("4:cpu,cpuacct:/user.slice\n3:net_cls,net_prio:/\n",
                             "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].name(), "cpu,cpuacct");
  EXPECT_TRUE(found[0].has("cpuacct"));
  EXPECT_FALSE(found[0].has("cpus"));
  EXPECT_EQ(found[0].mount_point, "/sys/fs/cgroup/cpu,cpuacct");
  EXPECT_EQ(found[1].mount_point, "");
}

TEST(Hierarchies, PureUnified) {
  const auto found = must(
      parse_hierarchies("0::/init.scope\n", "26 23 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_TRUE(found[0].unified);
  EXPECT_EQ(found[0].mount_point, "/sys/fs/cgroup");
}

TEST(Hierarchies, ReadsUnifiedControllersBelowAnotherRoot) {
  FakeTree tree;
  tree.file("unified/cgroup.controllers", "cpu memory\n");
  tree.dir("pids");
  const auto hierarchies = must(Hierarchies::open_below(tree.root(), {v1({"pids"}), v2()}));
  ASSERT_EQ(hierarchies.size(), 2u);
  EXPECT_EQ(hierarchies.at(1).unified_controllers, (std::vector<std::string>{"cpu", "memory"}));
  EXPECT_EQ(hierarchies.find(""), 1u);
  EXPECT_EQ(hierarchies.find("pids"), 0u);
  EXPECT_EQ(hierarchies.find("cpu"), std::nullopt);
  EXPECT_FALSE(Hierarchies::open_below(tree.root(), {v1({"cpu"})}));
}

TEST(NamespaceRoots, AreWhatTheInsideDoesNotSee) {
  const Membership outside{{"", "/c/init"}, {"memory", "/c"}, {"pids", "/x"}};
  const auto roots = must(namespace_roots(outside, {{"", "/init"}, {"memory", "/"}, {"pids", "/x"}}));
  EXPECT_EQ(roots.at(""), "/c");
  EXPECT_EQ(roots.at("memory"), "/c");
  EXPECT_EQ(roots.at("pids"), "/");
}

TEST(NamespaceRoots, TaskOutsideItsNamespaceIsRefused) {
  const auto roots = namespace_roots({{"", "/other"}}, {{"", "/../other"}});
  ASSERT_FALSE(roots);
  EXPECT_EQ(roots.error().code(), Code::kUnsupportedNamespace);
}

}  // namespace
}  // namespace stasis::cgroups
