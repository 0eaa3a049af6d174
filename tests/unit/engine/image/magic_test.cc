// SPDX-License-Identifier: Apache-2.0
#include "engine/image/magic.h"

#include <gtest/gtest.h>

#include <set>

namespace stasis::image {
namespace {

TEST(Magic, TableIsConsistent) {
  std::set<uint32_t> magics = {kCommonMagic, kServiceMagic};
  std::set<std::string_view> names, files;
  for (const auto& info : all_kinds()) {
    EXPECT_TRUE(magics.insert(info.magic).second) << info.crit_name;
    EXPECT_TRUE(names.insert(info.crit_name).second) << info.crit_name;
    EXPECT_TRUE(files.insert(info.file_pattern).second) << info.file_pattern;
    EXPECT_EQ(&kind_info(info.kind), &info);
    EXPECT_EQ(find_magic(info.magic), &info);
    EXPECT_TRUE(valid_file_name(info.file_pattern));
  }
  EXPECT_EQ(find_magic(0), nullptr);
}

TEST(Magic, FileNames) {
  EXPECT_EQ(file_name(Kind::kPstree), "pstree.img");
  EXPECT_EQ(file_name(Kind::kCore, 12), "core-12.img");
  EXPECT_EQ(file_name(Kind::kMnts, 7), "mountpoints-7.img");
  EXPECT_EQ(file_name(Kind::kGhostFile, 26), "ghost-file-1a.img");
  EXPECT_EQ(pages_name(3), "pages-3.img");
  EXPECT_EQ(shmem_pagemap_name(90), "pagemap-shmem-90.img");
  EXPECT_EQ(tmpfs_name(5), "tmpfs-5.tar.gz.img");
}

TEST(Magic, HeadBytes) {
  EXPECT_EQ(head_bytes(kind_info(Kind::kInventory)), std::string("\x16\x31\x31\x58", 4));
  EXPECT_EQ(head_bytes(kind_info(Kind::kCore)), std::string("\x19\x43\x56\x54\x47\x38\x05\x55", 8));
  // As go-criu checks it.
  EXPECT_EQ(head_bytes(kind_info(Kind::kStats)), std::string("\x40\x59\x10\x55\x06\x33\x09\x57", 8));
}

TEST(Magic, FileNamesThatMayNotStandInADirectory) {
  EXPECT_TRUE(valid_file_name("core-1.img"));
  EXPECT_TRUE(valid_file_name(std::string(255, 'a')));
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string(".hidden.img"), std::string("a/b"),
        std::string("/etc/passwd"), std::string("a\0b", 3), std::string(256, 'a')})
    EXPECT_FALSE(valid_file_name(name)) << name;
}

}  // namespace
}  // namespace stasis::image
