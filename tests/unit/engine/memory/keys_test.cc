// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/keys.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

namespace stasis::memory {
namespace {

struct Mapping {
  uint64_t start;
  int prot;
  uint32_t key;
};

bool good(std::initializer_list<Mapping> mappings, uint32_t allocated) {
  pb::mm_entry mm;
  pb::memory_extra extra;
  for (const auto& m : mappings) {
    auto& e = *mm.add_vmas();
    e.set_start(m.start), e.set_end(m.start + 0x1000), e.set_prot(static_cast<uint32_t>(m.prot));
    e.set_status(kVmaRegular | (m.start == 0x9000 ? kVmaVdso : kVmaAnonPrivate));
    if (m.key == 0) continue;
    auto& out = *extra.add_vmas();
    out.set_start(m.start), out.set_protection_key(m.key);
  }
  if (allocated) extra.set_allocated_keys(allocated);
  return check_keys(mm, extra).has_value();
}

TEST(Keys, WhatTheKernelGivesIsGood) {
  EXPECT_TRUE(good({}, 0));
  EXPECT_TRUE(good({{0x1000, PROT_READ, 1}, {0x2000, PROT_EXEC, 2}, {0x3000, PROT_EXEC, 0}}, 0b0010));
  EXPECT_TRUE(good({{0x1000, PROT_READ, 5}}, 0));  // freed, and still with its mapping
  EXPECT_TRUE(good({{0x1000, PROT_READ, 15}}, 0xfffe));
}

TEST(Keys, WhatItNeverGivesIsCorrupt) {
  EXPECT_FALSE(good({{0x1000, PROT_READ, 16}}, 0));
  EXPECT_FALSE(good({}, 1));  // key 0 is everybody's
  EXPECT_FALSE(good({}, 1u << 16));
  EXPECT_FALSE(good({{0x1000, PROT_EXEC, 2}, {0x2000, PROT_READ, 2}}, 0));  // the kernel's own key is nobody else's
  EXPECT_FALSE(good({{0x1000, PROT_EXEC, 2}, {0x2000, PROT_EXEC, 3}}, 0));
  EXPECT_FALSE(good({{0x9000, PROT_EXEC, 1}}, 0b0010));
}

}  // namespace
}  // namespace stasis::memory
