// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/vdso.h"

#include <elf.h>
#include <gtest/gtest.h>
#include <sys/auxv.h>

#include <cstring>
#include <random>

namespace stasis::memory {
namespace {

// What the kernel gave this very process: a page of header and tables, at least.
std::vector<uint8_t> own_image() {
  const auto* at = reinterpret_cast<const uint8_t*>(::getauxval(AT_SYSINFO_EHDR));
  return at ? std::vector<uint8_t>(at, at + 4096) : std::vector<uint8_t>();
}

TEST(Vdso, FunctionsByName) {
  const auto image = own_image();
  if (image.empty()) GTEST_SKIP() << "no vDSO";
  const auto functions = vdso_functions(image);
  ASSERT_TRUE(functions) << functions.error().message();
  ASSERT_TRUE(functions->contains("__vdso_clock_gettime"));
  EXPECT_EQ(functions->at("__vdso_clock_gettime"), functions->at("clock_gettime"));
}

TEST(Vdso, NoElfFile) {
  EXPECT_FALSE(vdso_functions({}));
  EXPECT_FALSE(vdso_functions(std::vector<uint8_t>(4096, 0)));
  auto image = own_image();
  if (image.empty()) GTEST_SKIP() << "no vDSO";
  image[EI_CLASS] = ELFCLASS32;
  EXPECT_FALSE(vdso_functions(image));
}

TEST(Vdso, NothingOfTheImageIsTrusted) {
  const auto good = own_image();
  if (good.empty()) GTEST_SKIP() << "no vDSO";
  for (size_t size = 0; size < good.size(); size += 7) (void)vdso_functions(std::span(good).first(size));
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    auto image = good;
    for (int i = 0; i < 8; ++i) image[random() % 1500] = static_cast<uint8_t>(random());
    const auto functions = vdso_functions(image);
    if (!functions) continue;
    for (const auto& [name, at] : *functions) EXPECT_LT(at, image.size());
  }
}

}  // namespace
}  // namespace stasis::memory
