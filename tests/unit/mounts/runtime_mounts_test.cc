// SPDX-License-Identifier: Apache-2.0
#include "mounts/runtime_mounts.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "engine/base/io.h"
#include "mounts/content.h"

namespace stasis::mounts {
namespace {

namespace fs = std::filesystem;

constexpr char kMade[] =
    R"(65 43 254:0 /b/rootfs / rw,relatime - ext4 /dev/vda rw
66 65 0:40 / /proc rw,relatime - proc proc rw
67 65 0:41 / /dev rw,nosuid - tmpfs tmpfs rw
68 67 0:42 / /dev/pts rw,nosuid - devpts devpts rw
49 66 0:41 /null /proc/keys rw,nosuid - tmpfs tmpfs rw
50 65 254:0 /data /data rw - ext4 /dev/vda rw
)";

RestorePlan planned() {
  RestorePlan plan;
  plan.staged.resize(2);
  plan.staged[0].fstype = "tmpfs", plan.staged[0].image = "tmpfs-dev-1.tar.gz.img", plan.staged[0].mountpoint = "/dev";
  plan.staged[1].fstype = "proc", plan.staged[1].mountpoint = "/proc";
  auto add = [&](const char* mountpoint, PlannedMount::From from, int staged) {
    PlannedMount m;
    m.mountpoint = mountpoint, m.from = from, m.staged = staged;
    if (staged >= 0) m.fstype = plan.staged[static_cast<size_t>(staged)].fstype;
    plan.mounts.push_back(m);
  };
  add("/", PlannedMount::From::kRoot, -1);
  add("/proc", PlannedMount::From::kStaged, 1);
  add("/dev", PlannedMount::From::kStaged, 0);
  add("/data", PlannedMount::From::kExternal, -1);
  return plan;
}

TEST(RuntimeMounts, FindsWhatIsToBeFilled) {
  const auto now = Table::parse(kMade);
  ASSERT_TRUE(now);
  const auto refills = match_runtime(planned(), *now);
  ASSERT_TRUE(refills);
  ASSERT_EQ(refills->size(), 1u);
  EXPECT_EQ(refills->front().mountpoint, "/dev");
  EXPECT_EQ(refills->front().mnt_id, 67);
  EXPECT_EQ(refills->front().kept, (std::set<std::string>{"null", "pts"}));
}

TEST(RuntimeMounts, RefusesAMountThatTheRuntimeDidNotMake) {
  const auto now = Table::parse(kMade);
  ASSERT_TRUE(now);
  RestorePlan missing = planned();
  missing.mounts[3].mountpoint = "/other";
  EXPECT_EQ(match_runtime(missing, *now).error().code(), Code::kMountTarget);
  EXPECT_EQ(match_runtime(missing, *now).error().object(), "mount /other");
  RestorePlan other_type = planned();
  other_type.mounts[2].fstype = "devtmpfs";
  EXPECT_EQ(match_runtime(other_type, *now).error().code(), Code::kMountTarget);
  RestorePlan twice = planned();
  twice.mounts.push_back(twice.mounts[3]);
  EXPECT_EQ(match_runtime(twice, *now).error().code(), Code::kMountTarget);
}

TEST(RuntimeMounts, RefillKeepsInodesThatOthersShow) {
  std::string top = (fs::temp_directory_path() / "stasis-refill-XXXXXX").string();
  ASSERT_NE(mkdtemp(top.data()), nullptr);
  const fs::path in = fs::path(top) / "in", out = fs::path(top) / "out";
  fs::create_directories(in / "pts");
  std::ofstream(in / "null") << "new";
  std::ofstream(in / "file") << "file";
  fs::create_directories(out / "pts");
  fs::create_directories(out / "old" / "deep");
  std::ofstream(out / "null") << "old and longer";
  std::ofstream(out / "old" / "deep" / "x") << "x";
  const auto inode = [](const fs::path& path) {
    struct stat st {};
    EXPECT_EQ(stat(path.c_str(), &st), 0);
    return st.st_ino;
  };
  const auto null_before = inode(out / "null"), pts_before = inode(out / "pts");
  const Fd image = *open_at(AT_FDCWD, top + "/image", O_RDWR | O_CREAT, 0600);
  ASSERT_TRUE(write_archive(open_at(AT_FDCWD, in, O_RDONLY | O_DIRECTORY)->get(), image.get()));
  lseek(image.get(), 0, SEEK_SET);
  const Fd directory = *open_at(AT_FDCWD, out, O_RDONLY | O_DIRECTORY);
  const auto done = refill(image.get(), directory.get(), {1, "/dev", "image", {"null", "pts"}});
  EXPECT_TRUE(done) << done.error().message();
  EXPECT_EQ(inode(out / "null"), null_before);
  EXPECT_EQ(inode(out / "pts"), pts_before);
  std::string text;
  std::ifstream(out / "null") >> text;
  EXPECT_EQ(text, "new");
  EXPECT_TRUE(fs::exists(out / "file"));
  EXPECT_FALSE(fs::exists(out / "old"));
  fs::remove_all(top);
}

}  // namespace
}  // namespace stasis::mounts
