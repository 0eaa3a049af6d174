// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/sharing.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace stasis::tasks {
namespace {

Result<TreePlan> plan(const std::vector<TreeInput>& input, const std::vector<Kinship>& kinship) {
  auto plan = TRY(plan_tree(input, false));
  TRY(plan_sharing(plan, kinship));
  return plan;
}

const TreeNode& node(const TreePlan& plan, uint32_t pid) {
  return *std::ranges::find_if(plan.nodes, [&](const auto& n) { return n.pid == pid && n.task >= 0; });
}

TEST(Sharing, BornWithAShareOfTheParents) {
  const auto p = plan({{1, 0, 1, 1}, {2, 1, 1, 1}, {3, 2, 1, 1}, {4, 2, 1, 1}}, {{7, 1}, {7, 2}, {7, 2}, {8, 3}});
  ASSERT_TRUE(p) << p.error().message();
  EXPECT_FALSE(node(*p, 1).shares_files);
  EXPECT_TRUE(node(*p, 2).shares_files && !node(*p, 2).shares_fs);
  EXPECT_TRUE(node(*p, 3).shares_files && node(*p, 3).shares_fs);
  EXPECT_FALSE(node(*p, 4).shares_files || node(*p, 4).shares_fs);
}

TEST(Sharing, NothingIsSharedByNumberZero) {
  const auto p = plan({{1, 0, 1, 1}, {2, 1, 1, 1}, {3, 1, 1, 1}}, {{0, 0}, {0, 0}, {0, 0}});
  ASSERT_TRUE(p) << p.error().message();
  for (const auto& n : p->nodes) EXPECT_FALSE(n.shares_files || n.shares_fs);
}

TEST(Sharing, SiblingsCannot) {
  const auto p = plan({{1, 0, 1, 1}, {2, 1, 1, 1}, {3, 1, 1, 1}}, {{1, 1}, {2, 2}, {2, 3}});
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error().code(), Code::kUnsupported);
  EXPECT_NE(p.error().message().find("pid 3 shares its file table"), std::string::npos) << p.error().message();
}

TEST(Sharing, NotThroughAProcessThatHasItsOwn) {
  EXPECT_FALSE(plan({{1, 0, 1, 1}, {2, 1, 1, 1}, {3, 2, 1, 1}}, {{1, 1}, {1, 2}, {1, 1}}));
}

// Born by a helper in that session, which has nothing to share.
TEST(Sharing, NotWithAnOrphanOfAnotherSession) {
  EXPECT_FALSE(plan({{1, 0, 1, 1}, {2, 1, 2, 2}, {3, 1, 3, 2}}, {{1, 1}, {2, 2}, {1, 3}}));
}

}  // namespace
}  // namespace stasis::tasks
