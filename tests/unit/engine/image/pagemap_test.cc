// SPDX-License-Identifier: Apache-2.0
#include "engine/image/pagemap.h"

#include <gtest/gtest.h>

#include "proto/mm.pb.h"
#include "tests/unit/engine/image/temp_dir.h"

namespace stasis::image {
namespace {

class PagemapTest : public ::testing::Test {
 protected:
  // Writes pagemap-1.img as given, and a pages file of `pages` pages.
  Result<Pagemap> read(const std::vector<pb::pagemap_entry>& entries, uint64_t pages) {
    TRY(write(entries, pages));
    const Reader reader = TRY(Reader::open(dir_.fd()));
    return read_pagemap(reader, "pagemap-1.img");
  }
  Result<void> write(const std::vector<pb::pagemap_entry>& entries, uint64_t pages) {
    Writer writer = TRY(Writer::create(dir_.fd(), true));
    RecordFile file = TRY(writer.open(Kind::kPagemap, "pagemap-1.img"));
    pb::pagemap_head head;
    head.set_pages_id(4);
    TRY(file.append(head));
    for (const auto& entry : entries) TRY(file.append(entry));
    TRY(file.close());
    RawFile raw = TRY(writer.open_raw("pages-4.img"));
    const std::string page(4096, 'p');
    for (uint64_t i = 0; i < pages; ++i) TRY(raw.append(page.data(), page.size()));
    TRY(raw.close());
    pb::inventory_entry inventory;
    inventory.set_img_version(kImageVersion);
    TRY(writer.put(Kind::kInventory, "inventory.img", inventory));
    return writer.commit(false);
  }
  static pb::pagemap_entry entry(uint64_t vaddr, uint32_t pages) {
    pb::pagemap_entry out;
    out.set_vaddr(vaddr);
    out.set_nr_pages(pages);
    out.set_flags(kPagePresent);
    return out;
  }
  TempDir dir_;
};

TEST_F(PagemapTest, OffsetsFollowTheOrder) {
  auto map = read({entry(0x1000, 2), entry(0x10000, 3), entry(0x13000, 1)}, 6);
  ASSERT_OK(map);
  EXPECT_EQ(map->pages_id, 4u);
  ASSERT_EQ(map->runs.size(), 3u);
  EXPECT_EQ(map->runs[1].vaddr, 0x10000u);
  EXPECT_EQ(map->runs[1].file_offset, 2u * 4096);
  EXPECT_EQ(map->runs[2].nr_pages, 1u);
  EXPECT_EQ(map->runs[2].file_offset, 5u * 4096);
}

TEST_F(PagemapTest, NoFlagsMeansPresentAndEmptyIsFine) {
  auto old = entry(0x1000, 1);
  old.clear_flags();
  auto map = read({old}, 1);
  ASSERT_OK(map);
  EXPECT_EQ(map->runs.size(), 1u);
  map = read({}, 0);
  ASSERT_OK(map);
  EXPECT_TRUE(map->runs.empty());
}

TEST_F(PagemapTest, LazyPagesThatAreHereArePages) {
  auto lazy = entry(0x1000, 1);
  lazy.set_flags(kPagePresent | kPageLazy);
  ASSERT_OK(read({lazy}, 1));
}

TEST_F(PagemapTest, TheWideCountOfNewerImagesWins) {
  auto wide = entry(0x1000, 0);
  wide.set_wide_nr_pages(2);
  auto map = read({wide}, 2);
  ASSERT_OK(map);
  EXPECT_EQ(map->runs[0].nr_pages, 2u);
}

TEST_F(PagemapTest, DamageIsRefused) {
  EXPECT_TRUE(fails_with(read({entry(0x1000, 2), entry(0x2000, 1)}, 3), Code::kImageCorrupt, "overlap"));
  EXPECT_TRUE(fails_with(read({entry(0x2000, 1), entry(0x1000, 1)}, 2), Code::kImageCorrupt, "out of order"));
  EXPECT_TRUE(fails_with(read({entry(0x1000, 3)}, 2), Code::kImageCorrupt, "pages-4.img is too short"));
  EXPECT_TRUE(fails_with(read({entry(0x1001, 1)}, 1), Code::kImageCorrupt, "0x1001"));
  EXPECT_TRUE(fails_with(read({entry(0x1000, 0)}, 1), Code::kImageCorrupt, "0 of them"));
  EXPECT_TRUE(fails_with(read({entry(0xfffffffffffff000, 1)}, 1), Code::kImageCorrupt, "0xfffffffffffff000"));
  auto huge = entry(0x7ffffffffffff000, 0);
  huge.set_wide_nr_pages(uint64_t{1} << 52);
  EXPECT_TRUE(fails_with(read({huge}, 1), Code::kImageCorrupt, "0x7ffffffffffff000"));
}

TEST_F(PagemapTest, WhatIsNotInThePagesFileIsRefusedByName) {
  auto parent = entry(0x5000, 1);
  parent.set_flags(kPageInParent);
  EXPECT_TRUE(fails_with(read({parent}, 1), Code::kUnsupported, "0x5000 are in a parent"));
  parent.clear_flags();
  parent.set_in_parent(true);
  EXPECT_TRUE(fails_with(read({parent}, 1), Code::kUnsupported, "parent"));
  auto lazy = entry(0x5000, 1);
  lazy.set_flags(kPageLazy);
  EXPECT_TRUE(fails_with(read({lazy}, 1), Code::kUnsupported, "lazy"));
  auto unknown = entry(0x5000, 1);
  unknown.set_flags(kPagePresent | 0x100);
  EXPECT_TRUE(fails_with(read({unknown}, 1), Code::kUnsupported, "unknown flags"));
  auto packed = entry(0x5000, 1);
  packed.set_compressed_blocks("x");
  EXPECT_TRUE(fails_with(read({packed}, 1), Code::kUnsupported, "compressed"));
}

TEST_F(PagemapTest, WriterMergesAdjacentRuns) {
  {
    auto writer = Writer::create(dir_.fd(), false);
    ASSERT_OK(writer);
    auto pagemap = PagemapWriter::create(*writer, "pagemap-9.img", 1);
    ASSERT_OK(pagemap);
    EXPECT_EQ(*pagemap->add(0x1000, 1), 0u);
    EXPECT_EQ(*pagemap->add(0x2000, 2), 4096u);
    EXPECT_EQ(*pagemap->add(0x9000, 1), 3u * 4096);
    EXPECT_TRUE(fails_with(pagemap->add(0x9000, 1), Code::kInternal, "0x9000"));
    EXPECT_TRUE(fails_with(pagemap->add(0x123456, 1), Code::kInternal, "0x123456"));
    EXPECT_EQ(pagemap->total_pages(), 4u);
    ASSERT_OK(pagemap->finish());
    auto raw = writer->open_raw("pages-1.img");
    ASSERT_OK(raw);
    ASSERT_OK(raw->append(std::string(4 * 4096, 'x').data(), 4 * 4096));
    ASSERT_OK(raw->close());
    pb::inventory_entry inventory;
    inventory.set_img_version(kImageVersion);
    ASSERT_OK(writer->put(Kind::kInventory, "inventory.img", inventory));
    ASSERT_OK(writer->commit(false));
  }
  auto reader = Reader::open(dir_.fd());
  ASSERT_OK(reader);
  auto map = read_pagemap(*reader, "pagemap-9.img");
  ASSERT_OK(map);
  ASSERT_EQ(map->runs.size(), 2u);
  EXPECT_EQ(map->runs[0].nr_pages, 3u);
  EXPECT_EQ(map->runs[1].vaddr, 0x9000u);
  EXPECT_EQ(map->runs[1].file_offset, 3u * 4096);
}

}  // namespace
}  // namespace stasis::image
