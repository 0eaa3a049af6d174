// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/interrupt.h"

namespace stasis::cli {
namespace {

// A process in run_isolated(), whose worker says its pid and waits for what InterruptGuard's users wait for.
struct Pair {
  pid_t front = -1, worker = -1;
  int out = -1;  // the worker's last word; its end is the end of both
};

Pair start_pair() {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  Pair pair{.out = ends[0]};
  pair.front = fork();
  if (pair.front == 0) {
    close(ends[0]);
    _exit(run_isolated([&] {
      const InterruptGuard guard;
      const pid_t self = getpid();
      (void)!write(ends[1], &self, sizeof(self));
      sigset_t set;
      sigemptyset(&set);
      sigaddset(&set, SIGTERM);
      int signal = 0;
      sigwait(&set, &signal);
      (void)!write(ends[1], "t", 1);
      return 7;
    }));
  }
  close(ends[1]);
  EXPECT_EQ(read(ends[0], &pair.worker, sizeof(pair.worker)), static_cast<ssize_t>(sizeof(pair.worker)));
  return pair;
}

std::string rest(const Pair& pair) {
  std::string text;
  char c;
  while (read(pair.out, &c, 1) == 1) text += c;
  close(pair.out);
  return text;
}

int wait_for(pid_t pid) {
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

TEST(RunIsolated, ReturnsTheStatusOfTheWork) {
  const pid_t self = getpid();
  EXPECT_EQ(run_isolated([&] { return getppid() == self ? 42 : 1; }), 42);
}

TEST(RunIsolated, AKilledWorkerIsAFailure) {
  EXPECT_EQ(run_isolated([] { return raise(SIGKILL); }), 128 + SIGKILL);
}

TEST(RunIsolated, LeavesTheSignalMaskAlone) {
  sigset_t before, after;
  sigprocmask(SIG_SETMASK, nullptr, &before);
  run_isolated([] { return 0; });
  sigprocmask(SIG_SETMASK, nullptr, &after);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD})
    EXPECT_EQ(sigismember(&before, signal), sigismember(&after, signal)) << signal;
}

TEST(RunIsolated, PassesSignalsOn) {
  const Pair pair = start_pair();
  kill(pair.front, SIGTERM);
  EXPECT_EQ(rest(pair), "t");
  const int status = wait_for(pair.front);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(RunIsolated, TheWorkerHearsOfAKill) {
  const Pair pair = start_pair();
  kill(pair.front, SIGKILL);
  EXPECT_EQ(rest(pair), "t");
  EXPECT_TRUE(WIFSIGNALED(wait_for(pair.front)));
}

}  // namespace
}  // namespace stasis::cli
