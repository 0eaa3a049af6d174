// SPDX-License-Identifier: Apache-2.0
// The finders over directories as the runtimes leave them, whole, half made and stale.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "integration/runtimes/lxc.h"
#include "integration/runtimes/places.h"
#include "integration/runtimes/podman.h"

namespace stasis::integration::runtimes {
namespace {

namespace fs = std::filesystem;

// Shortened from state.json of runc 1.1.5 on a hybrid host.
constexpr std::string_view kState = R"({"id":"web","init_process_pid":6996,"init_process_start":235292,
"created":"2024-01-01T11:08:33.766622099Z","config":{"no_pivot_root":false,"rootfs":"/b/rootfs","umask":null,
"labels":["org.x=1","bundle=/b"],"no_new_keyring":false},"rootless":false,
"cgroup_paths":{"":"/sys/fs/cgroup/unified/web","freezer":"/sys/fs/cgroup/freezer/web","memory":"/sys/fs/cgroup/memory/s/web"},
"namespace_paths":{"NEWPID":"/proc/6996/ns/pid"},"external_descriptors":["/dev/null","pipe:[77]","pipe:[77]"],"intel_rdt_path":""})";
// As crun 1.8.1 wrote it.
constexpr std::string_view kStatus = R"({
    "pid": 6996,
    "process-start-time": 235292,
    "cgroup-path": "/web",
    "scope": "",
    "rootfs": "rootfs",
    "systemd-cgroup": false,
    "bundle": "/b",
    "created": "2026-11-21T15:44:58.401137Z",
    "owner": "root",
    "detached": true,
    "external_descriptors": "[\"/dev/null\",\"pipe:[7]\",\"pipe:[7]\"]"
})";
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

TEST_F(RuncFind, RefusesADirectoryThatIsNotFinished) {
  fs::create_directories(dir_ + "/runc/half");
  auto found = find("runc", "half", options_);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), Code::kNoContainer);
  EXPECT_NE(found.error().message().find(dir_ + "/runc/half"), std::string::npos) << found.error().message();
  write("runc/half/state.json", "");
  found = find("runc", "half", options_);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), Code::kBadDescription);
  EXPECT_NE(found.error().message().find("half/state.json"), std::string::npos);
}

TEST_F(RuncFind, DoesNotWaitForAFifo) {
  fs::create_directories(dir_ + "/runc/fifo");
  ASSERT_EQ(::mkfifo((dir_ + "/runc/fifo/state.json").c_str(), 0600), 0);
  EXPECT_EQ(find("runc", "fifo", options_).error().code(), Code::kBadDescription);
}

// All runtimes, in their usual places below one directory.
class FindAll : public RuncFind {
 protected:
  void SetUp() override {
    RuncFind::SetUp();
    fs::remove_all(dir_ + "/runc");
    options_ = {.proc = dir_ + "/proc", .host = dir_, .lxc_info = dir_ + "/lxc-info"};
    answer("6997");
    write("proc/6997/stat", replaced("6996 ", "6997 ", kStat));
  }
  void answer(const std::string& pid) {
    write("lxc-info", "#!/bin/sh\necho '" + pid + "'\n");
    fs::permissions(dir_ + "/lxc-info", fs::perms::owner_all);
  }
  void podman(const std::string& list) {
    write("var/lib/containers/storage/overlay-containers/containers.json", list);
    write("run/runc/" + kLong + "/state.json", replaced("\"web\"", "\"" + kLong + "\"", kState));
  }
  const std::string kLong = "a5cbcb8b556734959f624e34cfb51018db3c1723eed02ff5fbf0679cdfbe9160";
  const std::string kList = "[{\"id\":\"" + kLong + "\",\"names\":[\"shop\"],\"image\":\"x\"}]";
};

TEST_F(FindAll, ReadsTheRecordOfCrun) {
  write("run/crun/web/status", kStatus);
  auto found = find("", "web", options_);
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(found->runtime, "crun");
  EXPECT_EQ(found->id, "web");
  EXPECT_EQ(found->pid, 6996);
  EXPECT_EQ(found->rootfs, "/b/rootfs");
  EXPECT_EQ(found->cgroup_path, "/web");
  EXPECT_EQ(found->config, dir_ + "/run/crun/web/config.json");
  EXPECT_EQ(found->stdio, (std::vector<std::string>{"/dev/null", "pipe:[7]", "pipe:[7]"}));
}

TEST_F(FindAll, RefusesAStaleOrDamagedRecordOfCrun) {
  write("run/crun/web/status", replaced("235292", "1", kStatus));
  EXPECT_EQ(find("crun", "web", options_).error().code(), Code::kNoContainer);
  write("run/crun/web/status", replaced("[\\\"/dev", "[/dev", kStatus));
  EXPECT_EQ(find("crun", "web", options_).error().code(), Code::kBadDescription);
  write("run/crun/web/status", replaced("\"bundle\"", "\"other\"", kStatus));
  EXPECT_EQ(find("crun", "web", options_).error().code(), Code::kBadDescription);
}

TEST_F(FindAll, FindsWhatPodmanNames) {
  podman(kList);
  for (const std::string& name : {std::string("shop"), kLong, kLong.substr(0, 12)}) {
    auto found = find("", name, options_);
    ASSERT_TRUE(found) << name << ": " << found.error().message();
    EXPECT_EQ(found->runtime, "podman");
    EXPECT_EQ(found->id, "shop");
    EXPECT_EQ(found->pid, 6996);
    EXPECT_EQ(found->config, "/b/config.json");
  }
  EXPECT_EQ(find("podman", kLong.substr(0, 6), options_).error().code(), Code::kNoContainer);
}

TEST_F(FindAll, PodmanWithoutARunningContainer) {
  podman(kList);
  fs::remove_all(dir_ + "/run/runc");
  auto found = find("", "shop", options_);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), Code::kNoContainer);
  EXPECT_NE(found.error().message().find("not running"), std::string::npos) << found.error().message();
}

TEST_F(FindAll, RefusesADamagedListOfPodman) {
  for (const char* bad : {"{", "{}", "[1]", "[{\"id\":1}]", "[{\"names\":[\"shop\"]}]"}) {
    podman(bad);
    EXPECT_EQ(find("podman", "shop", options_).error().code(), Code::kBadDescription) << bad;
  }
}

TEST_F(FindAll, AsksTheMonitorOfLxc) {
  write("var/lib/lxc/box/config", "lxc.uts.name = box\n");
  auto found = find("", "box", options_);
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(found->runtime, "lxc");
  EXPECT_EQ(found->pid, 6997);
  EXPECT_EQ(found->bundle, dir_ + "/var/lib/lxc/box");
  answer("");
  EXPECT_EQ(find("lxc", "box", options_).error().code(), Code::kNoContainer);
  answer("nonsense");
  EXPECT_EQ(find("lxc", "box", options_).error().code(), Code::kBadDescription);
}

TEST_F(FindAll, LooksWhereLxcConfSays) {
  write("elsewhere/box/config", "");
  write("etc/lxc/lxc.conf", "# here\nlxc.lxcpath = " + dir_ + "/elsewhere\n");
  EXPECT_TRUE(find("lxc", "box", options_));
  EXPECT_EQ(lxcpath_of("lxc.lxcpath=/x\n"), "/x");
  EXPECT_EQ(lxcpath_of("lxc.other = /x"), "");
}

TEST_F(FindAll, RefusesANameThatSeveralHave) {
  write("run/crun/web/status", kStatus);
  write("var/lib/lxc/web/config", "");
  auto found = find("", "web", options_);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), Code::kUsage);
  EXPECT_NE(found.error().message().find("crun web, lxc web"), std::string::npos) << found.error().message();
  EXPECT_TRUE(find("lxc", "web", options_));
  // One that does not run is no match.
  answer("");
  found = find("", "web", options_);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->runtime, "crun");
}

TEST_F(FindAll, NobodyKnowsIt) {
  write("run/crun/web/status", kStatus);
  auto found = find("", "nope", options_);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), Code::kNoContainer);
  EXPECT_NE(found.error().message().find("crun: web"), std::string::npos) << found.error().message();
  EXPECT_EQ(find("", "../web", options_).error().code(), Code::kNoContainer);
}

TEST(Runtimes, UnknownRuntime) { EXPECT_EQ(find("docker", "x", {}).error().code(), Code::kUnsupported); }

TEST(Runtimes, LookWhereRuntimesLook) {
  EXPECT_EQ(run_roots("runc", 0, nullptr), (std::vector<std::string>{"/run/runc"}));
  EXPECT_EQ(run_roots("crun", 1000, "/run/user/1000"), (std::vector<std::string>{"/run/user/1000/crun", "/run/crun"}));
}

}  // namespace
}  // namespace stasis::integration::runtimes
