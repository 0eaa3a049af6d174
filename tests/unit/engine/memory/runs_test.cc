// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/runs.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace stasis::memory {
namespace {

TEST(Runs, AppendJoinsWhatTouches) {
  Runs runs;
  append(runs, {0, 2});
  append(runs, {2, 4});
  append(runs, {3, 3});
  append(runs, {6, 8});
  append(runs, {7, 9});
  EXPECT_EQ(runs, (Runs{{0, 4}, {6, 9}}));
  EXPECT_EQ(total(runs), 7u);
}

TEST(Runs, SetsOfThem) {
  const Runs a{{0, 10}, {20, 30}}, b{{5, 7}, {9, 22}, {40, 41}};
  EXPECT_EQ(unite(a, b), (Runs{{0, 30}, {40, 41}}));
  EXPECT_EQ(intersect(a, b), (Runs{{5, 7}, {9, 10}, {20, 22}}));
  EXPECT_EQ(subtract(a, b), (Runs{{0, 5}, {7, 9}, {22, 30}}));
  EXPECT_EQ(subtract(a, {}), a);
  EXPECT_EQ(subtract({}, a), Runs());
  EXPECT_EQ(subtract({{0, 100}}, {{0, 1}, {99, 100}}), (Runs{{1, 99}}));
}

Runs from_set(const std::set<uint64_t>& set) {
  Runs runs;
  for (uint64_t x : set) append(runs, {x, x + 1});
  return runs;
}

TEST(Runs, AgreeWithPlainSets) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::set<uint64_t> a, b, both, either, only_a;
    for (int i = 0; i < 20; ++i) a.insert(random() % 40), b.insert(random() % 40);
    either = a;
    either.insert(b.begin(), b.end());
    for (uint64_t x : a) (b.contains(x) ? both : only_a).insert(x);
    EXPECT_EQ(unite(from_set(a), from_set(b)), from_set(either));
    EXPECT_EQ(intersect(from_set(a), from_set(b)), from_set(both));
    EXPECT_EQ(subtract(from_set(a), from_set(b)), from_set(only_a));
  }
}

}  // namespace
}  // namespace stasis::memory
