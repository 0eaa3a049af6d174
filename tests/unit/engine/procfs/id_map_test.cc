// SPDX-License-Identifier: Apache-2.0
#include "engine/procfs/id_map.h"

#include <gtest/gtest.h>

namespace stasis::procfs {
namespace {

IdMap map_of(std::vector<IdExtent> extents) { return IdMap{std::move(extents)}; }

TEST(IdMap, TranslatesBothWays) {
  const auto map = parse_id_map("         0     100000      65536\n     70000     300000          1\n");
  ASSERT_TRUE(map);
  EXPECT_TRUE(is_valid(*map));
  EXPECT_EQ(map->inside(100000), 0u);
  EXPECT_EQ(map->inside(165535), 65535u);
  EXPECT_EQ(map->inside(165536), std::nullopt);
  EXPECT_EQ(map->inside(99999), std::nullopt);
  EXPECT_EQ(map->inside(300000), 70000u);
  EXPECT_EQ(map->outside(70000), 300000u);
  EXPECT_EQ(map->outside(65536), std::nullopt);
  EXPECT_EQ(map->text(), "0 100000 65536\n70000 300000 1\n");
}

TEST(IdMap, EmptyIsReadAndIsNotValid) {
  const auto map = parse_id_map("");
  ASSERT_TRUE(map);
  EXPECT_FALSE(is_valid(*map));
}

TEST(IdMap, WholeRangeOfTheInitialNamespace) {
  const auto map = parse_id_map("         0          0 4294967295\n");
  ASSERT_TRUE(map);
  EXPECT_TRUE(is_valid(*map));
  EXPECT_EQ(map->inside(4294967294u), 4294967294u);
  EXPECT_EQ(map->inside(4294967295u), std::nullopt);
}

TEST(IdMap, WhatTheKernelWouldNotTakeIsNotValid) {
  EXPECT_FALSE(is_valid(map_of({{0, 1000, 0}})));
  EXPECT_FALSE(is_valid(map_of({{0, UINT32_MAX, 1}})));
  EXPECT_FALSE(is_valid(map_of({{1, 0, UINT32_MAX}})));
  EXPECT_FALSE(is_valid(map_of({{0, 1000, 10}, {9, 2000, 1}})));
  EXPECT_FALSE(is_valid(map_of({{0, 1000, 10}, {20, 1009, 5}})));
  EXPECT_TRUE(is_valid(map_of({{0, 1000, 10}, {10, 1010, 5}})));
  std::vector<IdExtent> many;
  for (uint32_t i = 0; i < 341; ++i) many.push_back({i * 2, i * 2, 1});
  EXPECT_FALSE(is_valid(map_of(many)));
  many.pop_back();
  EXPECT_TRUE(is_valid(map_of(many)));
}

TEST(IdMap, BadTextIsAnError) {
  for (const char* text : {"0 1", "0 1 2 3", "a 1 2", "0 -1 2", "0 4294967296 1"})
    EXPECT_FALSE(parse_id_map(text)) << text;
}

TEST(UserMaps, RootOrTheFirstId) {
  UserMaps maps;
  maps.uid = map_of({{0, 100000, 10}});
  maps.gid = map_of({{500, 200000, 10}, {600, 300000, 1}});
  EXPECT_EQ(maps.first_uid(), 0u);
  EXPECT_EQ(maps.first_gid(), 500u);
}

}  // namespace
}  // namespace stasis::procfs
