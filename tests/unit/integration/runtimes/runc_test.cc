// SPDX-License-Identifier: Apache-2.0
#include "integration/runtimes/runc.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace stasis::integration::runtimes {
namespace {

namespace fs = std::filesystem;

// Shortened from state.json of runc 1.1.5 on a hybrid host.
constexpr std::string_view kState = R"({"id":"web","init_process_pid":6996,"init_process_start":235292,
"created":"2024-01-01T11:08:33.766622099Z","config":{"no_pivot_root":false,"rootfs":"/b/rootfs","umask":null,
"labels":["org.x=1","bundle=/b"],"no_new_keyring":false},"rootless":false,
"cgroup_paths":{"":"/sys/fs/cgroup/unified/web","freezer":"/sys/fs/cgroup/freezer/web","memory":"/sys/fs/cgroup/memory/s/web"},
"namespace_paths":{"NEWPID":"/proc/6996/ns/pid"},"external_descriptors":["/dev/null","pipe:[77]","pipe:[77]"],"intel_rdt_path":""})";
constexpr std::string_view kStat =
    "6996 (sh) S 1 6996 6996 0 -1 4194560 720 0 0 0 0 1 0 0 20 0 1 0 235292 2322432 364 18446744073709551615 4198400 "
    "5785993 140723186680800 0 0 0 0 4 65538 1 0 0 17 1 0 0 0 0 0 6141704 6178576 119975936 140723186687863 "
    "140723186687900 140723186687900 140723186687984 0\n";

class RuncFind : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "runc_test_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
    write("runc/web/state.json", kState);
    write("runc/other/state.json", kState);
    write("proc/6996/stat", kStat);
    options_ = {.root = dir_ + "/runc", .proc = dir_ + "/proc"};
  }
  void TearDown() override { fs::remove_all(dir_); }
  void write(const std::string& name, std::string_view text) {
    const fs::path path = dir_ + "/" + name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  std::string replaced(std::string_view from, std::string_view to, std::string_view text) {
    std::string out(text);
    out.replace(out.find(from), from.size(), to);
    return out;
  }
  std::string dir_;
  FindOptions options_;
};

TEST_F(RuncFind, ReadsTheRecord) {
  auto found = find("runc", "web", options_);
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(found->pid, 6996);
  EXPECT_EQ(found->bundle, "/b");
  EXPECT_EQ(found->rootfs, "/b/rootfs");
  EXPECT_EQ(found->cgroup_dirs.at("freezer"), "/sys/fs/cgroup/freezer/web");
  EXPECT_EQ(found->stdio, (std::vector<std::string>{"/dev/null", "pipe:[77]", "pipe:[77]"}));
  EXPECT_EQ(found->state_dir, dir_ + "/runc/web");
}

TEST_F(RuncFind, UnknownNameListsWhatExists) {
  auto found = find("runc", "nope", options_);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), Code::kNoContainer);
  EXPECT_NE(found.error().message().find("runc has no container \"nope\""), std::string::npos);
  EXPECT_NE(found.error().message().find("it knows: other, web"), std::string::npos) << found.error().message();
}

TEST_F(RuncFind, RefusesNamesThatLeaveTheDirectory) {
  for (const char* id : {"", ".", "..", "../runc/web", "web/", "a b", "x\n"}) {
    auto found = find("runc", id, options_);
    ASSERT_FALSE(found) << id;
    EXPECT_EQ(found.error().code(), Code::kNoContainer) << id;
  }
}

TEST_F(RuncFind, RefusesARecycledPid) {
  write("proc/6996/stat", replaced(" 235292 ", " 235293 ", kStat));
  auto found = find("runc", "web", options_);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), Code::kNoContainer);
  EXPECT_NE(found.error().message().find("belongs to another"), std::string::npos);
}

TEST_F(RuncFind, RefusesAnEndedProcess) {
  write("proc/6996/stat", replaced(" S ", " Z ", kStat));
  EXPECT_FALSE(find("runc", "web", options_));
  fs::remove_all(dir_ + "/proc/6996");
  auto found = find("runc", "web", options_);
  ASSERT_FALSE(found);
  EXPECT_NE(found.error().message().find("process is gone"), std::string::npos);
}

TEST_F(RuncFind, RefusesARecordOfAnotherContainer) {
  auto found = find("runc", "other", options_);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), Code::kBadDescription);
}

TEST_F(RuncFind, RefusesADamagedRecord) {
  write("runc/web/state.json", kState.substr(0, 100));
  EXPECT_EQ(find("runc", "web", options_).error().code(), Code::kBadDescription);
  write("runc/web/state.json", replaced("6996", "-5", kState));
  EXPECT_EQ(find("runc", "web", options_).error().code(), Code::kBadDescription);
  write("runc/web/state.json", replaced("6996", "\"1\"", kState));
  EXPECT_EQ(find("runc", "web", options_).error().code(), Code::kBadDescription);
}

TEST_F(RuncFind, RefusesAContainerThatNeverStarted) {
  write("runc/web/state.json", replaced("6996", "0", kState));
  EXPECT_EQ(find("runc", "web", options_).error().code(), Code::kNoContainer);
}

TEST(Runtimes, UnknownRuntime) { EXPECT_EQ(find("docker", "x", {}).error().code(), Code::kUnsupported); }

TEST(Runc, LooksWhereRuncLooks) {
  EXPECT_EQ(runc::default_roots(0, nullptr), (std::vector<std::string>{"/run/runc"}));
  EXPECT_EQ(runc::default_roots(1000, "/run/user/1000"),
            (std::vector<std::string>{"/run/user/1000/runc", "/run/runc"}));
}

}  // namespace
}  // namespace stasis::integration::runtimes
