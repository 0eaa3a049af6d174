// SPDX-License-Identifier: Apache-2.0
// On plain directories: a made directory has no cgroup.procs there, which shows what happens on failure.
#include "cgroups/ground.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cgroups/apply.h"
#include "tests/unit/cgroups/fake_tree.h"

namespace stasis::cgroups {
namespace {

using ::testing::HasSubstr;

class CgroupGround : public ::testing::Test {
 protected:
  void SetUp() override {
    tree_.group("memory");
    tree_.group("memory/c");
    tree_.file("memory/c/memory.limit_in_bytes", "100");
    tree_.group("unified");
    tree_.group("unified/c");
    tree_.group("unified/c/sub");
    tree_.file("unified/c/cgroup.freeze", "0");
    hierarchies_ = must(Hierarchies::open_below(tree_.root(), {v1({"memory"}), v2()}));
  }

  RestorePlan plan(CgroupMode mode, const std::string& path = "/c") {
    RestorePlan out{.mode = mode};
    out.dirs.push_back({.hierarchy = 0, .path = path, .properties = {{"memory.limit_in_bytes", "200"}}});
    out.sets.push_back({1, {{.hierarchy = 0, .path = path}}});
    return out;
  }

  FakeTree tree_;
  Hierarchies hierarchies_;
};

TEST_F(CgroupGround, PropertiesByMode) {
  const std::pair<CgroupMode, std::string> cases[] = {
      {CgroupMode::kNone, "100"}, {CgroupMode::kSoft, "100"}, {CgroupMode::kProps, "200"}, {CgroupMode::kFull, "200"}};
  for (const auto& [mode, wanted] : cases) {
    tree_.file("memory/c/memory.limit_in_bytes", "100");
    ASSERT_TRUE(Ground::create(plan(mode), hierarchies_));
    EXPECT_EQ(tree_.text("memory/c/memory.limit_in_bytes"), wanted) << static_cast<int>(mode);
    EXPECT_TRUE(tree_.exists("memory/c")) << "it was there before";
  }
}

TEST_F(CgroupGround, StrictRefusesWhatExists) {
  const auto ground = Ground::create(plan(CgroupMode::kStrict), hierarchies_);
  ASSERT_FALSE(ground);
  EXPECT_EQ(ground.error().code(), Code::kCgroup);
  EXPECT_THAT(ground.error().line(), HasSubstr("memory:/c"));
  EXPECT_EQ(tree_.text("memory/c/memory.limit_in_bytes"), "100");
}

TEST_F(CgroupGround, NoneAndPropsMakeNothing) {
  for (const CgroupMode mode : {CgroupMode::kNone, CgroupMode::kProps}) {
    const auto ground = Ground::create(plan(mode, "/new"), hierarchies_);
    ASSERT_FALSE(ground);
    EXPECT_THAT(ground.error().line(), HasSubstr("memory:/new"));
    EXPECT_FALSE(tree_.exists("memory/new"));
  }
}

TEST_F(CgroupGround, FailureRemovesWhatWasMade) {
  RestorePlan broken = plan(CgroupMode::kSoft, "/x/y/z");
  const auto ground = Ground::create(broken, hierarchies_);
  ASSERT_FALSE(ground) << "the limit's file does not exist in a plain directory";
  EXPECT_EQ(ground.error().code(), Code::kCgroup);
  EXPECT_THAT(ground.error().object(), HasSubstr("memory:/x/y/z/memory.limit_in_bytes"));
  EXPECT_FALSE(tree_.exists("memory/x"));
}

TEST_F(CgroupGround, MissingFileOfAnInitialValueDoesNotMatter) {
  RestorePlan harmless = plan(CgroupMode::kFull);
  harmless.dirs[0].properties = {{"memory.memsw.limit_in_bytes", "9223372036854771712"}};
  EXPECT_TRUE(Ground::create(harmless, hierarchies_));
  harmless.dirs[0].properties = {{"memory.memsw.limit_in_bytes", "12345"}};
  EXPECT_FALSE(Ground::create(harmless, hierarchies_));
}

TEST_F(CgroupGround, EnterWritesOncePerHierarchyThatDiffers) {
  RestorePlan two = plan(CgroupMode::kSoft);
  two.dirs.clear();
  two.sets[0].placements.push_back({.hierarchy = 1, .path = "/c", .inherited = true});
  two.sets.push_back({2, {{.hierarchy = 0, .path = "/c"}, {.hierarchy = 1, .path = "/c/sub"}}});
  const Ground ground = *Ground::create(two, hierarchies_);
  EXPECT_TRUE(ground.enter(1, 42));
  EXPECT_EQ(tree_.text("memory/c/cgroup.procs"), "42");
  EXPECT_EQ(tree_.text("unified/c/cgroup.procs"), "") << "the engine is there already";
  EXPECT_TRUE(ground.enter_from(1, 2, 43));
  EXPECT_EQ(tree_.text("memory/c/cgroup.procs"), "42");
  EXPECT_EQ(tree_.text("unified/c/sub/cgroup.procs"), "43");
  EXPECT_TRUE(ground.enter(1, 0));
  EXPECT_EQ(tree_.text("memory/c/tasks"), "0") << "the caller moves itself by the cheaper file";
  EXPECT_TRUE(ground.enter(0, 44)) << "no set: nothing to do";
  const auto unknown = ground.enter(9, 44);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), Code::kImageCorrupt);
}

TEST_F(CgroupGround, NamespaceRootIsEnteredFirstAndDistributesLast) {
  RestorePlan deep{.mode = CgroupMode::kFull};
  deep.dirs.push_back(
      {.hierarchy = 1, .path = "/c", .properties = {{"cgroup.subtree_control", "pids"}}, .frozen = true});
  deep.dirs.push_back({.hierarchy = 1, .path = "/c/sub", .properties = {{"pids.max", "7"}}});
  deep.sets.push_back({1, {{.hierarchy = 1, .path = "/c/sub", .prefix = "/c"}}});
  for (const char* dir : {"unified", "unified/c"}) {
    tree_.file(std::string(dir) + "/cgroup.controllers", "cpu pids");
    tree_.file(std::string(dir) + "/cgroup.subtree_control", "");
  }
  tree_.file("unified/c/sub/pids.max", "max");
  auto ground = Ground::create(deep, hierarchies_);
  ASSERT_TRUE(ground) << ground.error().line();
  EXPECT_EQ(tree_.text("unified/cgroup.subtree_control"), "+pids");
  EXPECT_EQ(tree_.text("unified/c/cgroup.subtree_control"), "") << "a task is yet to pass through";
  EXPECT_TRUE(ground->has_prefix(1));
  EXPECT_GE(ground->unified_fd(1), 0);
  EXPECT_TRUE(ground->enter_prefix(1, 42));
  EXPECT_EQ(tree_.text("unified/c/cgroup.procs"), "42");
  EXPECT_TRUE(ground->enter_below_prefix(1, 42));
  EXPECT_EQ(tree_.text("unified/c/sub/cgroup.procs"), "42");
  EXPECT_EQ(tree_.text("unified/c/sub/pids.max"), "max");
  ASSERT_TRUE(ground->restore_freezer());
  EXPECT_EQ(tree_.text("unified/c/cgroup.subtree_control"), "+pids");
  EXPECT_EQ(tree_.text("unified/c/sub/pids.max"), "7ax") << "written once, over the start of a plain file";
  EXPECT_EQ(tree_.text("unified/c/cgroup.freeze"), "1");
  ground->thaw();
  EXPECT_EQ(tree_.text("unified/c/cgroup.freeze"), "0");
}

TEST_F(CgroupGround, UncommittedLeavesNothingFrozen) {
  RestorePlan frozen{.mode = CgroupMode::kFull};
  frozen.dirs.push_back({.hierarchy = 1, .path = "/c", .frozen = true});
  for (const bool commit : {false, true}) {
    {
      auto ground = Ground::create(frozen, hierarchies_);
      ASSERT_TRUE(ground && ground->restore_freezer());
      EXPECT_EQ(tree_.text("unified/c/cgroup.freeze"), "1");
      if (commit) ground->commit();
    }
    EXPECT_EQ(tree_.text("unified/c/cgroup.freeze"), commit ? "1" : "0");
  }
}

TEST_F(CgroupGround, LimitOfAControllerTheHostLacksIsRefused) {
  RestorePlan lacking{.mode = CgroupMode::kFull};
  lacking.dirs.push_back({.hierarchy = 1, .path = "/c", .properties = {{"memory.max", "4096"}}});
  tree_.file("unified/cgroup.controllers", "pids");
  tree_.file("unified/cgroup.subtree_control", "");
  const auto ground = Ground::create(lacking, hierarchies_);
  ASSERT_FALSE(ground);
  EXPECT_THAT(ground.error().line(), HasSubstr("memory"));
}

TEST_F(CgroupGround, IgnoreIsANoOp) {
  const auto ground = Ground::create(RestorePlan{}, hierarchies_);
  ASSERT_TRUE(ground);
  EXPECT_TRUE(ground->enter(5, 42));
  EXPECT_EQ(ground->unified_fd(5), -1);
}

TEST(CgroupApply, CpusetIsInheritedOnlyWhenEmpty) {
  FakeTree tree;
  tree.file("p/cpuset.cpus", "0-3\n");
  tree.file("p/cpuset.mems", "0\n");
  tree.file("p/c/cpuset.cpus", "\n");
  tree.file("p/c/cpuset.mems", "1\n");
  const auto hierarchies = must(Hierarchies::open_below(tree.root(), {v1({"cpuset"}, "p"), v1({"cpuset"}, "p/c")}));
  ASSERT_TRUE(inherit_cpuset(hierarchies.root_fd(0), hierarchies.root_fd(1)));
  EXPECT_EQ(tree.text("p/c/cpuset.cpus"), "0-3");
  EXPECT_EQ(tree.text("p/c/cpuset.mems"), "1\n");
}

}  // namespace
}  // namespace stasis::cgroups
