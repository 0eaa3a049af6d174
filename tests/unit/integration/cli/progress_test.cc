// SPDX-License-Identifier: Apache-2.0
#include "integration/cli/progress.h"

#include <gtest/gtest.h>

#include "integration/cli/session.h"

namespace stasis::integration::cli {
namespace {

class Recorder : public Notifier {
 public:
  Result<void> notify(std::string_view script, pid_t, int) override {
    seen.emplace_back(script);
    return {};
  }
  std::vector<std::string> seen;
};

TEST(Progress, CallsHooksThenTheNextOne) {
  Recorder next;
  Progress progress("x", true, &next);
  pid_t told = 0;
  progress.on("post-restore", [&](pid_t pid, int) -> Result<void> {
    EXPECT_TRUE(next.seen.size() == 1);
    told = pid;
    return {};
  });
  EXPECT_TRUE(progress.notify("pre-restore", 0, -1));
  EXPECT_TRUE(progress.notify("post-restore", 7, -1));
  EXPECT_EQ(told, 7);
  EXPECT_EQ(next.seen, (std::vector<std::string>{"pre-restore", "post-restore"}));
}

TEST(Progress, AHookCanRefuse) {
  Recorder next;
  Progress progress("x", true, &next);
  progress.on("post-dump", [](pid_t, int) -> Result<void> { return fail(Code::kNoSpace, "full"); });
  auto told = progress.notify("post-dump", 0, -1);
  ASSERT_FALSE(told);
  EXPECT_EQ(told.error().code(), Code::kNoSpace);
  EXPECT_TRUE(next.seen.empty());
}

TEST(Progress, PrintsNothingWhereNobodyLooks) {
  testing::internal::CaptureStderr();  // a file, no terminal
  {
    Progress progress("x", false, nullptr);
    EXPECT_TRUE(progress.notify("pre-dump", 0, -1));
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Duration, PicksTheUnit) {
  EXPECT_EQ(duration_text(0), "0.0 ms");
  EXPECT_EQ(duration_text(12340), "12.3 ms");
  EXPECT_EQ(duration_text(1500000), "1.50 s");
}

}  // namespace
}  // namespace stasis::integration::cli
