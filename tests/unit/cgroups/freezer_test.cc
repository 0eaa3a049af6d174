// SPDX-License-Identifier: Apache-2.0
// Plain files do not freeze anything: what is checked here is which file is written when.
#include "cgroups/freezer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/cgroups/fake_tree.h"

namespace stasis::cgroups {
namespace {

using ::testing::ElementsAre;

TEST(CgroupFreezer, WrongPlacesAreRefused) {
  FakeTree tree;
  tree.dir("plain");
  for (const std::string& path : {tree.path("plain"), tree.path("absent"), std::string()}) {
    const auto freezer = Freezer::open(path);
    ASSERT_FALSE(freezer) << path;
    EXPECT_EQ(freezer.error().code(), Code::kFreezer);
  }
}

TEST(CgroupFreezer, V1StateAndDoubleSlash) {
  FakeTree tree;
  tree.file("c/freezer.state", "THAWED\n");
  tree.file("f/freezer.state", "FROZEN\n");
  EXPECT_FALSE(Freezer::open(tree.root() + "//c")->was_frozen());
  EXPECT_TRUE(Freezer::open(tree.root() + "//f")->was_frozen());
}

TEST(CgroupFreezer, V1FreezesAndPutsBack) {
  FakeTree tree;
  tree.file("c/freezer.state", "THAWED");
  {
    auto freezer = Freezer::open(tree.path("c"));
    ASSERT_TRUE(freezer);
    EXPECT_TRUE(freezer->freeze(1000));
    EXPECT_EQ(tree.text("c/freezer.state"), "FROZEN");
  }
  EXPECT_EQ(tree.text("c/freezer.state"), "THAWED");
}

TEST(CgroupFreezer, FoundFrozenIsFrozenAgain) {
  FakeTree tree;
  tree.file("c/freezer.state", "FROZEN");
  {
    auto freezer = Freezer::open(tree.path("c"));
    ASSERT_TRUE(freezer->thaw());
    EXPECT_EQ(tree.text("c/freezer.state"), "THAWED");
  }
  EXPECT_EQ(tree.text("c/freezer.state"), "FROZEN");
  {
    auto freezer = Freezer::open(tree.path("c"));
    ASSERT_TRUE(freezer->thaw());
    freezer->forget();
  }
  EXPECT_EQ(tree.text("c/freezer.state"), "THAWED");
}

TEST(CgroupFreezer, UntouchedIsNotWritten) {
  FakeTree tree;
  tree.file("c/freezer.state", "FREEZING\n");
  EXPECT_TRUE(Freezer::open(tree.path("c"))->was_frozen());
  EXPECT_EQ(tree.text("c/freezer.state"), "FREEZING\n");
}

TEST(CgroupFreezer, V2TimesOutAndThaws) {
  FakeTree tree;
  tree.file("c/cgroup.freeze", "0");
  tree.file("c/cgroup.events", "populated 1\nfrozen 0\n");
  auto freezer = Freezer::open(tree.path("c"));
  ASSERT_TRUE(freezer);
  EXPECT_TRUE(freezer->is_v2());
  EXPECT_FALSE(freezer->was_frozen());
  const auto done = freezer->freeze(30);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Code::kTimeout);
  EXPECT_EQ(tree.text("c/cgroup.freeze"), "0");
}

TEST(CgroupFreezer, V2FrozenFromAbove) {
  FakeTree tree;
  tree.file("c/cgroup.freeze", "0");
  tree.file("c/cgroup.events", "populated 1\nfrozen 1\n");
  auto freezer = Freezer::open(tree.path("c"));
  EXPECT_TRUE(freezer->was_frozen());
  const auto done = freezer->thaw();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Code::kFreezer);
}

TEST(CgroupFreezer, ProcessesOfTheWholeTree) {
  FakeTree tree;
  tree.file("c/freezer.state", "THAWED");
  tree.file("c/cgroup.procs", "12\n3\n");
  tree.file("c/tasks", "12\n13\n3\n");
  tree.file("c/a/cgroup.procs", "7\n");
  tree.file("c/a/tasks", "7\n");
  tree.file("c/a/b/cgroup.procs", "3\n");
  tree.file("c/a/b/tasks", "3\n");
  const auto freezer = Freezer::open(tree.path("c"));
  EXPECT_THAT(must(freezer->processes()), ElementsAre(3, 7, 12));
  EXPECT_THAT(must(freezer->threads()), ElementsAre(3, 7, 12, 13));
}

}  // namespace
}  // namespace stasis::cgroups
