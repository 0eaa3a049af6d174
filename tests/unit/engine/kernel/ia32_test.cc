// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/x86_64/ia32.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <cerrno>

#include "engine/kernel/x86_64/runner.h"

namespace stasis::kernel {
namespace {

Regs of_32_bits(uint64_t orig, int64_t result) {
  Regs regs{};
  regs.cs = kCodeSegment32;
  regs.rip = 0x8048002;
  regs.orig_rax = orig;
  regs.rax = static_cast<uint64_t>(result);
  return regs;
}

TEST(Ia32, RestartCodesHave32Bits) {
  EXPECT_EQ(restart_code(of_32_bits(162, kRestartBlock)), kRestartBlock);
  EXPECT_EQ(restart_code(of_32_bits(162, static_cast<uint32_t>(kRestartBlock))), kRestartBlock);
  EXPECT_EQ(restart_code(of_32_bits(0xffffffff, kRestartBlock)), 0);
  auto native = of_32_bits(162, static_cast<uint32_t>(kRestartBlock));
  native.cs = kCodeSegment;
  EXPECT_EQ(restart_code(native), 0);
}

TEST(Ia32, NumbersAreItsOwn) {
  // What is epoll_wait(2) in 64-bit code is flistxattr(2) here.
  auto regs = of_32_bits(__NR_epoll_wait, -EINTR);
  EXPECT_FALSE(restart_cut_short(regs));
  regs = of_32_bits(256, -EINTR);
  ASSERT_TRUE(restart_cut_short(regs));
  EXPECT_EQ(restart_code(regs), kRestartNoHandler);
  regs = of_32_bits(256, -EINTR);
  regs.cs = kCodeSegment;
  EXPECT_FALSE(restart_cut_short(regs));
  regs = of_32_bits(117, -EINTR);  // ipc
  regs.rbx = 11;                   // MSGSND
  EXPECT_FALSE(restart_cut_short(regs));
  regs.rbx = 4;  // SEMTIMEDOP
  EXPECT_TRUE(restart_cut_short(regs));
}

TEST(Ia32, DrivenIn64BitMode) {
  auto regs = of_32_bits(162, kRestartBlock);
  aim_runner(regs, 0x10000, 0x20000, 1, {});
  EXPECT_EQ(regs.cs, kCodeSegment);
  regs = of_32_bits(162, kRestartBlock);
  const uint64_t args[] = {~uint64_t{0}, 2};
  aim_int80(regs, 0x10000, static_cast<uint64_t>(kIa32Mmap2), args);
  EXPECT_EQ(regs.cs, kCodeSegment32);
  EXPECT_EQ(regs.rbx, 0xffffffffu);
  EXPECT_EQ(regs.rcx, 2u);
  EXPECT_EQ(regs.rbp, 0u);
  EXPECT_EQ(static_cast<int64_t>(regs.orig_rax), -1);
}

TEST(Ia32, RunnerHasItsInstruction) {
  const auto code = runner_code();
  ASSERT_EQ(code.size(), kIa32End);
  EXPECT_EQ(code[kRunnerInt80], kInt80Insn[0]);
  EXPECT_EQ(code[kRunnerInt80 + 1], kInt80Insn[1]);
  EXPECT_EQ(code[kIa32End - 1], 0xcc);
}

TEST(Ia32, OwnRobustListIsEmpty) {
  if (!runs_ia32()) GTEST_SKIP() << "this kernel runs no 32-bit code";
  const auto list = get_ia32_robust_list(0);
  ASSERT_TRUE(list) << list.error().message();
  EXPECT_EQ(list->head, 0u);
  EXPECT_EQ(list->length, kIa32RobustListSize);
  EXPECT_FALSE(get_ia32_robust_list(-1));
}

}  // namespace
}  // namespace stasis::kernel
