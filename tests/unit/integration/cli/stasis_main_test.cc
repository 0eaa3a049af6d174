// SPDX-License-Identifier: Apache-2.0
#include "integration/cli/stasis_main.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "integration/config/json.h"
#include "integration/plan_yaml.h"

namespace stasis::integration::cli {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int status = 0;
  std::string out, err;
};

Outcome stasis(std::vector<std::string> args) {
  args.insert(args.begin(), "stasis");
  std::vector<char*> argv;
  for (auto& arg : args) argv.push_back(arg.data());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Outcome run;
  run.status = stasis_main(static_cast<int>(argv.size()), argv.data());
  run.out = testing::internal::GetCapturedStdout();
  run.err = testing::internal::GetCapturedStderr();
  return run;
}

std::string json_member(const std::string& text, std::string_view key) {
  auto node = config::parse_json(text, "out");
  EXPECT_TRUE(node) << text;
  const config::Node* member = node ? node->find(key) : nullptr;
  return member ? member->text() : "";
}

class StasisMain : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "stasis_main_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
    fs::create_directories(dir_ + "/b/rootfs");
    fs::create_directories(dir_ + "/runc");
    std::ofstream(dir_ + "/b/config.json") << R"({"root":{"path":"rootfs"},"linux":{"namespaces":[{"type":"pid"}]}})";
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string dir_;
};

TEST_F(StasisMain, WrongUsageIsStatusTwo) {
  for (std::vector<std::string> args : {std::vector<std::string>{},
                                        {"frobnicate"},
                                        {"plan"},
                                        {"plan", "--no-such"},
                                        {"checkpoint", "a", "b"},
                                        {"checkpoint"},
                                        {"checkpoint", "a", "--pid", "1"},
                                        {"restore"},
                                        {"restore", "word", "-D", "/x"},
                                        {"show"},
                                        {"version", "word"},
                                        {"restore", "-D", "/x", "--exec-cmd"},
                                        {"checkpoint", "--images-dir"}})
    EXPECT_EQ(stasis(args).status, 2) << (args.empty() ? "" : args[0]);
}

TEST_F(StasisMain, HelpOfEveryCommand) {
  const std::string all = stasis({"--help"}).out;
  for (const char* command : {"checkpoint", "restore", "check", "plan", "show", "version"}) {
    EXPECT_NE(all.find(cat("stasis ", command)), std::string::npos) << command;
    const Outcome run = stasis({command, "--help"});
    EXPECT_EQ(run.status, 0);
    EXPECT_TRUE(run.out.starts_with(cat("Usage: stasis ", command, " "))) << run.out;
    EXPECT_NE(run.out.find("--json"), std::string::npos) << command;
  }
  EXPECT_NE(stasis({"restore", "--help"}).out.find("--cgroup-root"), std::string::npos);
}

TEST_F(StasisMain, Version) {
  EXPECT_EQ(stasis({"version"}).out, "stasis 0.1.0 (drop-in for criu 4.2)\n");
  EXPECT_EQ(json_member(stasis({"version", "--json"}).out, "version"), kVersion);
}

TEST_F(StasisMain, PlanOfABundleIsReadBack) {
  const Outcome run =
      stasis({"plan", "--bundle", dir_ + "/b", "--cgroup-root", "/n", "--exec-cmd", "--", "sleep", "5"});
  ASSERT_EQ(run.status, 0) << run.err;
  auto plan = from_yaml(run.out, "out");
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->root, fs::canonical(dir_ + "/b").string() + "/rootfs");
  EXPECT_EQ(plan->cgroups.mode, CgroupMode::kSoft);
  EXPECT_EQ(plan->supervisor, (std::vector<std::string>{"sleep", "5"}));
  EXPECT_FALSE(json_member(stasis({"plan", "--json", "--bundle", dir_ + "/b"}).out, "root").empty());
}

TEST_F(StasisMain, UnknownContainer) {
  const Outcome text = stasis({"checkpoint", "--runtime-root", dir_ + "/runc", "nope", "-D", dir_ + "/i"});
  EXPECT_EQ(text.status, 1);
  EXPECT_TRUE(text.err.starts_with("STASIS-E-NO-CONTAINER: ")) << text.err;
  EXPECT_FALSE(fs::exists(dir_ + "/i"));
  const Outcome json = stasis({"plan", "--json", "--runtime-root", dir_ + "/runc", "nope"});
  EXPECT_EQ(json.status, 1);
  EXPECT_EQ(json_member(json.out, "code"), "STASIS-E-NO-CONTAINER");
  EXPECT_EQ(stasis({"plan", "--runtime", "docker", "x"}).status, 1);
}

TEST_F(StasisMain, BadDescriptionsAreNamedByPlace) {
  std::ofstream(dir_ + "/b/config.json") << "{\"root\": {\"path\": 5}}";
  const Outcome run = stasis({"plan", "--json", "--bundle", dir_ + "/b"});
  EXPECT_EQ(json_member(run.out, "code"), "STASIS-E-BAD-DESCRIPTION");
  EXPECT_NE(json_member(run.out, "message").find("$.root.path"), std::string::npos);
  fs::create_directory(dir_ + "/i");
  std::ofstream(dir_ + "/p.yaml") << "plan: 1\nmoutns: []\n";
  const Outcome plan = stasis({"restore", "--json", "-D", dir_ + "/i", "--plan", dir_ + "/p.yaml"});
  EXPECT_EQ(json_member(plan.out, "code"), "STASIS-E-BAD-DESCRIPTION");
  EXPECT_NE(json_member(plan.out, "message").find("line 2"), std::string::npos);
}

TEST_F(StasisMain, BadOptionsOfRestoreComeBeforeAnyChange) {
  fs::create_directory(dir_ + "/i");
  const auto code = [&](std::vector<std::string> more) {
    std::vector<std::string> args = {"restore", "--json", "-D", dir_ + "/i"};
    args.insert(args.end(), more.begin(), more.end());
    const Outcome run = stasis(args);
    EXPECT_NE(run.status, 0);
    return json_member(run.out, "code");
  };
  EXPECT_EQ(code({"--cgroup-root", "nosuchcontroller:/n"}), "STASIS-E-CGROUP-ROOT");
  EXPECT_EQ(code({"--cgroup-root", "/a/../b"}), "STASIS-E-CGROUP-ROOT");
  EXPECT_EQ(code({"--manage-cgroups=hard"}), "STASIS-E-BAD-OPTION");
  EXPECT_EQ(code({"--exec-cmd", "--", dir_ + "/none"}), "STASIS-E-BAD-SUPERVISOR");
  EXPECT_EQ(code({"--root", dir_ + "/none"}), "STASIS-E-MOUNT-TARGET");
  EXPECT_EQ(code({"--bundle", dir_ + "/none"}), "STASIS-E-NOT-FOUND");
  EXPECT_EQ(code({"--detach", "--exec-cmd", "--", "sh"}), "STASIS-E-USAGE");
  EXPECT_EQ(json_member(stasis({"restore", "--json", "-D", dir_ + "/none"}).out, "code"), "STASIS-E-IMAGE-DIR");
}

TEST_F(StasisMain, ImagesDirMustBeEmptyAndHaveAParent) {
  fs::create_directory(dir_ + "/i");
  std::ofstream(dir_ + "/i/mine") << "x";
  const std::string pid = cat(::getpid());  // cannot be dumped anyway, and is never asked
  const Outcome full = stasis({"checkpoint", "--json", "--pid", pid, "-D", dir_ + "/i"});
  EXPECT_EQ(json_member(full.out, "code"), "STASIS-E-IMAGE-DIR");
  EXPECT_TRUE(fs::exists(dir_ + "/i/mine"));
  const Outcome orphan = stasis({"checkpoint", "--json", "--pid", pid, "-D", dir_ + "/no/i"});
  EXPECT_EQ(json_member(orphan.out, "code"), "STASIS-E-IMAGE-DIR");
}

TEST_F(StasisMain, AFailedCheckpointLeavesNoDirectory) {
  const Outcome run = stasis({"checkpoint", "--json", "--pid", cat(::getpid()), "-D", dir_ + "/i"});
  EXPECT_EQ(json_member(run.out, "code"), "STASIS-E-BAD-OPTION");  // the engine cannot dump itself
  EXPECT_FALSE(fs::exists(dir_ + "/i"));
}

TEST_F(StasisMain, ShowNeedsImages) {
  EXPECT_EQ(json_member(stasis({"show", "--json", dir_ + "/none"}).out, "code"), "STASIS-E-IMAGE-MISSING");
  EXPECT_EQ(json_member(stasis({"show", "--json", dir_ + "/runc"}).out, "code"), "STASIS-E-IMAGE-MISSING");
}

TEST_F(StasisMain, UnknownFeature) { EXPECT_EQ(stasis({"check", "--feature", "no_such"}).status, 1); }

}  // namespace
}  // namespace stasis::integration::cli
