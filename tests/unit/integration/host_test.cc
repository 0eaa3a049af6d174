// SPDX-License-Identifier: Apache-2.0
#include "integration/host.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

namespace stasis::integration {
namespace {

namespace fs = std::filesystem;

TEST(ResolveInRoot, FollowsLinksButNeverOutside) {
  std::string root = testing::TempDir() + "host_test_XXXXXX";
  ASSERT_NE(::mkdtemp(root.data()), nullptr);
  fs::create_directories(root + "/run/real");
  fs::create_directories(root + "/var");
  fs::create_symlink("/run", root + "/var/run");
  fs::create_symlink("../../../../etc", root + "/run/up");
  fs::create_symlink("loop", root + "/loop");
  EXPECT_EQ(resolve_in_root(root, "/var/run/x"), "/run/x");
  EXPECT_EQ(resolve_in_root(root, "//var/./run//real/"), "/run/real");
  EXPECT_EQ(resolve_in_root(root, "/run/up/passwd"), "/etc/passwd");
  EXPECT_EQ(resolve_in_root(root, "/../../x"), "/x");
  EXPECT_EQ(resolve_in_root(root, "/none/y"), "/none/y");
  EXPECT_EQ(resolve_in_root(root, "/"), "/");
  EXPECT_EQ(resolve_in_root(root, "/loop/z"), "/loop/z");
  fs::remove_all(root);
}

TEST(ReadHost, KnowsTheHierarchies) {
  auto host = read_host("", 0);
  ASSERT_TRUE(host) << host.error().message();
  EXPECT_FALSE(host->hierarchies.empty());
  for (const auto& hierarchy : host->hierarchies) EXPECT_TRUE(host->own.contains(hierarchy.name())) << hierarchy.name();
}

}  // namespace
}  // namespace stasis::integration
