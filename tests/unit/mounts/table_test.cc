// SPDX-License-Identifier: Apache-2.0
#include "mounts/table.h"

#include <gtest/gtest.h>

#include "tests/unit/mounts/samples.h"

namespace stasis::mounts {
namespace {

TEST(Paths, UnderAndBelow) {
  EXPECT_TRUE(is_under("/a/b", "/a"));
  EXPECT_TRUE(is_under("/a", "/a"));
  EXPECT_TRUE(is_under("/a", "/"));
  EXPECT_FALSE(is_under("/ab", "/a"));
  EXPECT_EQ(below("/a/b", "/a"), "b");
  EXPECT_EQ(below("/a", "/a"), "");
  EXPECT_EQ(below("/a/b", "/"), "a/b");
  EXPECT_EQ(join_path("/", "a"), "/a");
  EXPECT_EQ(join_path("/x", "a/b"), "/x/a/b");
  EXPECT_EQ(join_path("/x", ""), "/x");
}

TEST(Paths, Clean) {
  for (const char* good : {"/", "/a", "/a/b", "/..."}) EXPECT_TRUE(is_clean_path(good)) << good;
  for (const char* bad : {"", "a", "/a/", "//", "/a//b", "/a/../b", "/.", "/.."})
    EXPECT_FALSE(is_clean_path(bad)) << bad;
  EXPECT_FALSE(is_clean_path(std::string_view("/a\0b", 4)));
}

TEST(Table, FindsRootParentsAndPlaces) {
  auto t = Table::parse(samples::kRunc);
  ASSERT_TRUE(t) << t.error().line();
  EXPECT_EQ(t->mounts[t->root].mnt_id, 65);
  EXPECT_EQ(t->find(44)->parent_id, 66);
  EXPECT_EQ(t->find(99), nullptr);
  EXPECT_EQ(t->at("/proc/bus/pci").mnt_id, 44);
  EXPECT_EQ(t->at("/proc/busy").mnt_id, 66);
  EXPECT_EQ(t->at("/etc/passwd").mnt_id, 65);
  EXPECT_EQ(t->at("/dev/shm").mnt_id, 69);
  EXPECT_EQ(t->of_device(kernel_dev(0, 41)).size(), 2u);
  EXPECT_EQ(kernel_dev(254, 3), 254u << 20 | 3u);
}

TEST(Table, KnowsWhatIsHidden) {
  auto t = Table::parse(samples::kShared);
  ASSERT_TRUE(t);
  for (int id : {77, 45, 48, 66, 68}) EXPECT_TRUE(t->reachable(*t->find(id))) << id;
  for (int id : {64, 65, 67}) EXPECT_FALSE(t->reachable(*t->find(id))) << id;
  auto covers = t->covered_by(*t->find(65));
  ASSERT_EQ(covers.size(), 1u);
  EXPECT_EQ(covers[0]->mnt_id, 66);
  EXPECT_TRUE(t->covered_by(*t->find(66)).empty());
}

TEST(Table, UncoversStacksFromTheTop) {
  auto t = Table::parse(
      "1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /m rw - tmpfs a rw\n3 2 0:3 / /m rw - tmpfs b rw\n"
      "4 3 0:4 / /m rw - tmpfs c rw\n5 4 0:5 / /m/s rw - tmpfs d rw\n");
  ASSERT_TRUE(t);
  auto covers = t->covered_by(*t->find(2));
  ASSERT_EQ(covers.size(), 2u);
  EXPECT_EQ(covers[0]->mnt_id, 4);
  EXPECT_EQ(covers[1]->mnt_id, 3);
}

TEST(Table, OrdersParentsFirstAndDeepSiblingsFirst) {
  auto t = Table::parse(samples::kShared);
  ASSERT_TRUE(t);
  std::vector<int> ids;
  for (auto* m : t->in_order()) ids.push_back(m->mnt_id);
  ASSERT_EQ(ids.size(), t->mounts.size());
  EXPECT_EQ(ids[0], 77);
  EXPECT_EQ(ids[1], 67);  // /e/x/y must stand before /e hides its place
  auto at = [&](int id) { return std::find(ids.begin(), ids.end(), id) - ids.begin(); };
  EXPECT_LT(at(64), at(65));
  EXPECT_LT(at(65), at(66));
}

TEST(Table, RefusesBrokenTrees) {
  EXPECT_FALSE(Table::parse(""));
  EXPECT_FALSE(Table::parse("1 0 0:1 / / rw - ext4 x rw\n1 0 0:2 / /m rw - tmpfs a rw\n"));
  EXPECT_FALSE(Table::parse("1 0 0:1 / / rw - ext4 x rw\n2 9 0:2 / /m rw - tmpfs a rw\n"));
  EXPECT_FALSE(
      Table::parse("1 0 0:1 / / rw - ext4 x rw\n2 3 0:2 / /m rw - tmpfs a rw\n3 2 0:2 / /m rw - tmpfs a rw\n"));
  EXPECT_TRUE(Table::parse("1 1 0:1 / / rw - rootfs x rw\n"));
}

}  // namespace
}  // namespace stasis::mounts
