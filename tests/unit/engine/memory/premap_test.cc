// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/premap.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "engine/memory/vma.h"

namespace stasis::memory {
namespace {

constexpr uint64_t kP = 4096, kBase = 0x10000000;
Run pages(uint64_t first, uint64_t end) { return {kBase + first * kP, kBase + end * kP}; }

struct Tree {
  tasks::Snapshot s;
  tasks::TreePlan plan;

  // A task whose first mapping has 100 pages at kBase, the first `own` of them in its pages file.
  tasks::TaskImage& add(uint32_t pid, uint32_t ppid, uint64_t first, uint64_t end) {
    auto& task = s.tasks.emplace_back();
    task.node.set_pid(pid);
    task.node.set_ppid(ppid);
    auto& e = *task.mm.add_vmas();
    e.set_start(pages(first, end).start), e.set_end(pages(first, end).end);
    e.set_status(kVmaRegular | kVmaAnonPrivate), e.set_flags(MAP_PRIVATE | MAP_ANONYMOUS);
    return task;
  }
  void make_plan() {
    std::vector<tasks::TreeInput> input;
    for (const auto& t : s.tasks) input.push_back({t.node.pid(), t.node.ppid(), 1, 1});
    plan = *tasks::plan_tree(input, false);
  }
};

TEST(Premap, NothingWithoutInheritedPages) {
  Tree t;
  t.add(1, 0, 0, 100);
  t.add(2, 1, 0, 100);
  t.make_plan();
  for (const auto& p : plan_premap(t.s, t.plan, {})) EXPECT_TRUE(p.kept.empty() && p.own.empty() && p.fill.empty());
}

TEST(Premap, ParentMapsAndReadsWhatItsChildrenNeed) {
  Tree t;
  t.add(1, 0, 0, 100);
  t.add(2, 1, 0, 100).inherited = {pages(0, 10), pages(20, 30)};
  t.add(3, 1, 0, 100).inherited = {pages(5, 25)};
  t.make_plan();
  const auto p = plan_premap(t.s, t.plan, {});
  ASSERT_EQ(p[0].own.size(), 1u);
  EXPECT_EQ(p[0].fill, (Runs{pages(0, 30)}));
  EXPECT_EQ(p[0].ready, (Runs{pages(0, 30)}));
  EXPECT_TRUE(p[0].stale.empty());
  EXPECT_EQ(p[1].kept, (Runs{pages(0, 100)}));
  EXPECT_EQ(p[1].ready, (Runs{pages(0, 10), pages(20, 30)}));
  EXPECT_EQ(p[1].stale, (Runs{pages(10, 20)}));
  EXPECT_EQ(p[2].stale, (Runs{pages(0, 5), pages(25, 30)}));
}

TEST(Premap, GrandchildrenNeedWhatTheChildHasChanged) {
  Tree t;
  t.add(1, 0, 0, 100);
  t.add(2, 1, 0, 100).inherited = {pages(0, 10)};
  t.add(3, 2, 0, 100).inherited = {pages(0, 20)};
  t.make_plan();
  const auto p = plan_premap(t.s, t.plan, {});
  EXPECT_EQ(p[0].fill, (Runs{pages(0, 10)}));
  EXPECT_TRUE(p[1].own.empty());
  EXPECT_EQ(p[1].fill, (Runs{pages(10, 20)}));
  EXPECT_EQ(p[1].ready, (Runs{pages(0, 20)}));
  EXPECT_TRUE(p[1].stale.empty());
  EXPECT_EQ(p[2].ready, (Runs{pages(0, 20)}));
}

TEST(Premap, ThePartOfAMappingThatTheChildHas) {
  Tree t;
  t.add(1, 0, 0, 100);
  t.add(2, 1, 40, 60).inherited = {pages(40, 50)};
  t.add(3, 1, 90, 110).inherited = {pages(90, 95)};  // longer than the parent's: read, not inherited
  t.make_plan();
  const auto p = plan_premap(t.s, t.plan, {});
  EXPECT_EQ(p[0].kept, (Runs{pages(0, 100)}));
  EXPECT_EQ(p[0].fill, (Runs{pages(40, 50)}));
  EXPECT_EQ(p[1].kept, (Runs{pages(40, 60)}));
  EXPECT_TRUE(p[2].kept.empty() && p[2].ready.empty());
}

TEST(Premap, NothingWhereTheStubHasSomethingItself) {
  Tree t;
  t.add(1, 0, 0, 100);
  t.add(2, 1, 0, 100).inherited = {pages(0, 10)};
  t.make_plan();
  for (const auto& p : plan_premap(t.s, t.plan, {pages(99, 200)})) EXPECT_TRUE(p.kept.empty() && p.fill.empty());
}

TEST(Premap, AnotherKindOfMappingIsNotInherited) {
  Tree t;
  t.add(1, 0, 0, 100);
  auto& child = t.add(2, 1, 0, 100);
  child.inherited = {pages(0, 10)};
  child.mm.mutable_vmas(0)->set_flags(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  t.make_plan();
  EXPECT_TRUE(plan_premap(t.s, t.plan, {})[0].own.empty());
}

}  // namespace
}  // namespace stasis::memory
