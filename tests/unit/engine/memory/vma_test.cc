// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/vma.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "engine/memory/shared.h"

namespace stasis::memory {
namespace {

constexpr MapContext kContext{.shmem_major = 0, .shmem_minor = 1, .own_ipc = true};

std::vector<procfs::Map> maps_of(const std::string& head, const std::string& flags, int page_kb = 4, int key = 0) {
  auto maps = procfs::parse_smaps(cat(head, "\nSize: 4 kB\nKernelPageSize:    ", page_kb,
                                      " kB\nProtectionKey:         ", key, "\nVmFlags: ", flags, "\n"));
  EXPECT_TRUE(maps.has_value());
  return maps.value_or(std::vector<procfs::Map>{});
}

// The one mapping, or what is said against it.
std::variant<Vma, std::string> classified(const std::vector<procfs::Map>& maps, const MapContext& context = kContext) {
  std::vector<Error> obstacles;
  auto vmas = classify(context, maps, 12, obstacles);
  if (!obstacles.empty()) return obstacles.front().message();
  EXPECT_EQ(vmas.size(), 1u);
  return vmas.front();
}

TEST(Vma, SharedAnonymousIsAnObjectOfItsOwn) {
  const auto got = classified(maps_of("1000-5000 rw-s 00002000 00:01 77 /dev/zero (deleted)", "rd wr sh"));
  const auto& vma = std::get<Vma>(got);
  EXPECT_TRUE(vma.shared_object);
  EXPECT_FALSE(vma.has_contents);
  EXPECT_EQ(vma.entry.status(), kVmaRegular | kVmaAnonShared);
  EXPECT_EQ(vma.entry.pgoff(), 0x2000u);
  EXPECT_EQ(vma.entry.flags(), unsigned{MAP_SHARED | MAP_ANONYMOUS});
}

TEST(Vma, AFileThatHasTheNameOfAKernelObjectIsAFile) {
  for (const char* name : {"/dev/zero (deleted)", "/memfd:x (deleted)", "/SYSV00000000 (deleted)"}) {
    const auto got = classified(maps_of(cat("1000-5000 rw-s 00000000 08:01 77 ", name), "rd wr sh"));
    ASSERT_TRUE(std::holds_alternative<Vma>(got)) << name;
    EXPECT_EQ(std::get<Vma>(got).entry.status(), kVmaRegular | kVmaFileShared) << name;
  }
}

TEST(Vma, SegmentsNeedAnIpcNamespaceOfTheirOwn) {
  const auto maps = maps_of("1000-5000 r--s 00001000 00:01 77 /SYSV00000000 (deleted)", "rd sh");
  const auto got = classified(maps);
  EXPECT_EQ(std::get<Vma>(got).entry.shmid(), 77u);
  EXPECT_TRUE(is_sysv(std::get<Vma>(got).entry));
  auto host = kContext;
  host.own_ipc = false;
  EXPECT_NE(std::get<std::string>(classified(maps, host)).find("host's ipc namespace"), std::string::npos);
}

TEST(Vma, HugePagesKeepTheirSize) {
  const auto got =
      classified(maps_of("200000-400000 rw-p 00000000 00:11 5 /anon_hugepage (deleted)", "rd wr ht", 2048));
  const auto& entry = std::get<Vma>(got).entry;
  EXPECT_EQ(entry.status(), kVmaRegular | kVmaAnonPrivate);
  EXPECT_EQ(huge_size(entry.flags()), 2u << 20);
  EXPECT_EQ(huge_size(huge_flags(uint64_t{1} << 30)), uint64_t{1} << 30);
  EXPECT_EQ(huge_size(MAP_PRIVATE), 0u);
}

TEST(Vma, WhatCannotBeKeptIsNamed) {
  EXPECT_NE(std::get<std::string>(classified(maps_of("1000-5000 r-xp 00000000 00:00 0 [vdso]", "rd ex", 4, 3)))
                .find("protection key"),
            std::string::npos);
  EXPECT_NE(std::get<std::string>(classified(maps_of("1000-5000 rw-p 00000000 00:00 0 ", "rd sl"))).find("mseal"),
            std::string::npos);
  EXPECT_NE(
      std::get<std::string>(classified(maps_of("200000-400000 rw-s 00000000 00:20 9 /mnt/huge/file", "rd ht", 2048)))
          .find("hugetlbfs"),
      std::string::npos);
}

TEST(Vma, NamesAndLocksOnFaultGoToTheManifest) {
  pb::memory_extra extra;
  for (const auto& [head, flags] : {std::pair{"1000-2000 rw-p 00000000 00:00 0 [anon:a name]", "rd lo lf"},
                                    std::pair{"3000-4000 rw-p 00000000 00:00 0 ", "rd lo"}})
    add_extras(std::get<Vma>(classified(maps_of(head, flags))), extra);
  add_extras(std::get<Vma>(classified(maps_of("5000-6000 rw-p 00000000 00:00 0 ", "rd", 4, 7))), extra);
  ASSERT_EQ(extra.vmas_size(), 2);
  EXPECT_EQ(extra.vmas(1).protection_key(), 7u);
  EXPECT_EQ(extra.vmas(0).name(), "a name");
  EXPECT_TRUE(extra.vmas(0).lock_on_fault());
}

pb::mm_entry two_mappings() {
  pb::mm_entry mm;
  for (uint64_t start : {0x1000u, 0x3000u, 0x5000u}) {
    auto& e = *mm.add_vmas();
    e.set_start(start), e.set_end(start + (start == 0x3000 ? 0x2000 : 0x1000));
    e.set_status(kVmaRegular | kVmaAnonPrivate);
  }
  return mm;
}
bool guards_are_good(std::initializer_list<std::pair<uint64_t, uint64_t>> ranges) {
  pb::memory_extra extra;
  for (const auto& [start, end] : ranges) {
    auto& guard = *extra.add_guards();
    guard.set_start(start), guard.set_end(end);
  }
  return check_extra(two_mappings(), extra).has_value();
}

TEST(Vma, GuardPagesOfImagesLieInMappings) {
  EXPECT_TRUE(guards_are_good({}));
  EXPECT_TRUE(guards_are_good({{0x1000, 0x2000}, {0x3000, 0x4000}, {0x4000, 0x6000}}));
  EXPECT_FALSE(guards_are_good({{0x1000, 0x3000}}));
  EXPECT_FALSE(guards_are_good({{0x2000, 0x3000}}));
  EXPECT_FALSE(guards_are_good({{0x5000, 0x7000}}));
  EXPECT_FALSE(guards_are_good({{0x9000, 0xa000}}));
  EXPECT_FALSE(guards_are_good({{0x3000, 0x4000}, {0x1000, 0x2000}}));
  EXPECT_FALSE(guards_are_good({{0x3001, 0x4000}}));
  EXPECT_FALSE(guards_are_good({{0x4000, 0x3000}}));
}

TEST(Vma, ExtrasAreAboutMappingsThatExist) {
  pb::memory_extra extra;
  extra.add_vmas()->set_start(0x3000);
  EXPECT_TRUE(check_extra(two_mappings(), extra).has_value());
  extra.mutable_vmas(0)->set_start(0x4000);
  EXPECT_FALSE(check_extra(two_mappings(), extra).has_value());
  extra.mutable_vmas(0)->set_start(0x3000);
  extra.mutable_vmas(0)->set_name(std::string(80, 'x'));
  EXPECT_FALSE(check_extra(two_mappings(), extra).has_value());
  extra.clear_vmas();
  extra.set_lock_future(MCL_CURRENT);
  EXPECT_FALSE(check_extra(two_mappings(), extra).has_value());
}

}  // namespace
}  // namespace stasis::memory
