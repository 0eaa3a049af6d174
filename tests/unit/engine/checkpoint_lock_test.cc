// SPDX-License-Identifier: Apache-2.0
#include "engine/checkpoint_lock.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace stasis {
namespace {

TEST(CheckpointLock, OneAtATime) {
  auto proc = procfs::Procfs::open();
  ASSERT_TRUE(proc);
  {
    auto first = lock_checkpoint(*proc, ::getpid());
    ASSERT_TRUE(first) << first.error().message();
    auto second = lock_checkpoint(*proc, ::getpid());
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code(), Code::kBusy);
    EXPECT_TRUE(lock_checkpoint(*proc, ::getppid()));  // another task is another lock
  }
  EXPECT_TRUE(lock_checkpoint(*proc, ::getpid()));
}

TEST(CheckpointLock, DiesWithItsHolder) {
  auto proc = procfs::Procfs::open();
  ASSERT_TRUE(proc);
  const pid_t self = ::getpid();
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto held = lock_checkpoint(*proc, self);
    (void)!::write(ready[1], held ? "y" : "n", 1);
    ::pause();
    ::_exit(0);
  }
  char answer = 0;
  ASSERT_EQ(::read(ready[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  EXPECT_FALSE(lock_checkpoint(*proc, self));
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(lock_checkpoint(*proc, self));
  ::close(ready[0]), ::close(ready[1]);
}

TEST(CheckpointLock, ATaskThatIsGoneIsNotLocked) {
  auto proc = procfs::Procfs::open();
  ASSERT_TRUE(proc);
  auto none = lock_checkpoint(*proc, (1 << 22) + 1);
  ASSERT_TRUE(none);
  EXPECT_FALSE(*none);
}

}  // namespace
}  // namespace stasis
