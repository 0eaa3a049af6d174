// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/bpf.h"

#include <gtest/gtest.h>
#include <linux/bpf.h>

namespace stasis::kernel {
namespace {

std::string text(std::initializer_list<bpf_insn> instructions) {
  return {reinterpret_cast<const char*>(instructions.begin()), instructions.size() * sizeof(bpf_insn)};
}
constexpr bpf_insn kAllow{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1}, kExit{BPF_JMP | BPF_EXIT, 0, 0, 0, 0};

TEST(DeviceProgram, PlainCodeIsTaken) {
  EXPECT_TRUE(check_device_program(text({kAllow, kExit}), "x"));
  // The second word of a wide constant is no instruction.
  EXPECT_TRUE(check_device_program(
      text({{BPF_LD | BPF_IMM | BPF_DW, 1, 0, 0, 7}, {BPF_JMP | BPF_CALL, 0, 0, 0, 0}, kAllow, kExit}), "x"));
}

TEST(DeviceProgram, WhatRefersToOtherObjectsIsRefused) {
  const auto call = check_device_program(text({{BPF_JMP | BPF_CALL, 0, 0, 0, 1}, kExit}), "cgroup /a");
  ASSERT_FALSE(call);
  EXPECT_EQ(call.error().code(), Code::kUnsupported);
  EXPECT_EQ(call.error().object(), "cgroup /a");
  EXPECT_FALSE(check_device_program(
      text({{BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, 3}, {0, 0, 0, 0, 0}, kExit}), "x"));
}

TEST(DeviceProgram, LengthsAreChecked) {
  EXPECT_FALSE(check_device_program("", "x"));
  EXPECT_FALSE(check_device_program("123456789", "x"));
  EXPECT_FALSE(check_device_program(std::string(8 * (BPF_MAXINSNS + 1), '\0'), "x"));
}

}  // namespace
}  // namespace stasis::kernel
