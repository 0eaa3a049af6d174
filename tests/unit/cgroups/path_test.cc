// SPDX-License-Identifier: Apache-2.0
#include "cgroups/path.h"

#include <gtest/gtest.h>

namespace stasis::cgroups {
namespace {

TEST(CgroupPath, NormaliseCleansAndRefuses) {
  EXPECT_EQ(*normalise("lxc.payload.c1", Code::kCgroupRoot), "/lxc.payload.c1");
  EXPECT_EQ(*normalise("//a///b/./c/", Code::kCgroupRoot), "/a/b/c");
  EXPECT_EQ(*normalise("", Code::kCgroupRoot), "/");
  EXPECT_EQ(*normalise("/a/..b/c..", Code::kCgroupRoot), "/a/..b/c..");
  for (const std::string bad : {"/a/../b", "..", "/..", "a/.."}) {
    const auto result = normalise(bad, Code::kCgroupRoot);
    ASSERT_FALSE(result) << bad;
    EXPECT_EQ(result.error().code(), Code::kCgroupRoot);
  }
  EXPECT_FALSE(normalise(std::string_view("/a\0b", 4), Code::kImageCorrupt));
  EXPECT_FALSE(normalise(std::string(5000, 'x'), Code::kImageCorrupt));
}

TEST(CgroupPath, UnderMeansWholeComponents) {
  EXPECT_TRUE(is_under("/dsch/x", "/dsch"));
  EXPECT_TRUE(is_under("/dsch", "/dsch"));
  EXPECT_FALSE(is_under("/dsch_tasks", "/dsch"));
  EXPECT_TRUE(is_under("/dsch_tasks", "/"));
}

TEST(CgroupPath, AncestorRebaseJoinParent) {
  EXPECT_EQ(common_ancestor({"/a/b/c", "/a/b", "/a/bx"}), "/a");
  EXPECT_EQ(common_ancestor({"/a/b"}), "/a/b");
  EXPECT_EQ(common_ancestor({"/a", "/b"}), "/");
  EXPECT_EQ(common_ancestor({}), "/");
  EXPECT_EQ(rebase("/c/sub", "/c", "/n"), "/n/sub");
  EXPECT_EQ(rebase("/c", "/c", "/"), "/");
  EXPECT_EQ(rebase("/c/sub", "/c", "/"), "/sub");
  EXPECT_EQ(rebase("/c", "/", "/n"), "/n/c");
  EXPECT_EQ(rebase("/", "/", "/n"), "/n");
  EXPECT_EQ(join_path("/", "/docker"), "/docker");
  EXPECT_EQ(join_path("/a", ""), "/a");
  EXPECT_EQ(parent_of("/a/b"), "/a");
  EXPECT_EQ(parent_of("/a"), "/");
  EXPECT_EQ(relative("/"), ".");
  EXPECT_EQ(relative("/a/b"), "a/b");
}

}  // namespace
}  // namespace stasis::cgroups
