// SPDX-License-Identifier: Apache-2.0
#include "mounts/fstypes.h"

#include <gtest/gtest.h>
#include <sys/mount.h>

namespace stasis::mounts {
namespace {

TEST(MountFlags, TimeWordsExcludeEachOther) {
  EXPECT_EQ(mount_flags("rw,relatime"), uint32_t(MS_RELATIME));
  EXPECT_EQ(mount_flags("rw"), uint32_t(MS_STRICTATIME));
  EXPECT_EQ(mount_flags("ro,nosuid,nodev,noexec,noatime,nodiratime"),
            uint32_t(MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME));
}

TEST(MountFlags, UnknownWordsAreReported) {
  std::vector<std::string> unknown;
  mount_flags("rw,idmapped,relatime", &unknown);
  EXPECT_EQ(unknown, std::vector<std::string>{"idmapped"});
}

TEST(MountFlags, BecomeAttributes) {
  EXPECT_EQ(mount_attrs(MS_RELATIME), 0u);
  EXPECT_EQ(mount_attrs(MS_NOATIME | MS_NODIRATIME), uint64_t(MOUNT_ATTR_NOATIME | MOUNT_ATTR_NODIRATIME));
  EXPECT_EQ(mount_attrs(MS_STRICTATIME | MS_RDONLY), uint64_t(MOUNT_ATTR_STRICTATIME | MOUNT_ATTR_RDONLY));
  EXPECT_EQ(mount_attrs(MS_NOSUID | MS_NODEV | MS_NOEXEC),
            uint64_t(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  EXPECT_EQ(flag_words(MS_RDONLY | MS_NOSUID), "ro,nosuid");
}

TEST(SuperOptions, SplitsFlagsFromData) {
  auto o = super_options("ro,sync,lazytime,seclabel,size=4k,mode=755");
  EXPECT_EQ(o.flags, uint32_t(MS_RDONLY | MS_SYNCHRONOUS | MS_LAZYTIME));
  EXPECT_EQ(o.data, "size=4k,mode=755");
  EXPECT_EQ(super_options("rw").data, "");
}

TEST(FsTypes, NumbersAreThoseOfTheImage) {
  EXPECT_EQ(find_fstype("proc")->code, 1u);
  EXPECT_EQ(find_fstype("tmpfs")->code, 5u);
  EXPECT_EQ(find_fstype("mqueue")->code, 14u);
  EXPECT_EQ(find_fstype("cgroup2")->code, 23u);
  EXPECT_EQ(find_fstype(12u)->name, "cgroup");
  EXPECT_EQ(find_fstype("ext4"), nullptr);
  EXPECT_EQ(find_fstype(kFsAuto), nullptr);
}

TEST(FsTypes, AutoOnlyIfAskedForAndNeverWithADevice) {
  EXPECT_EQ(find_auto_fstype("hugetlbfs", {}), nullptr);
  EXPECT_NE(find_auto_fstype("hugetlbfs", {"tracefs", "hugetlbfs"}), nullptr);
  EXPECT_NE(find_auto_fstype("hugetlbfs", {"x,hugetlbfs"}), nullptr);
  EXPECT_NE(find_auto_fstype("configfs", {"all"}), nullptr);
  EXPECT_EQ(find_auto_fstype("ext4", {"all"}), nullptr);
  EXPECT_EQ(find_auto_fstype("nfs", {"nfs"}), nullptr);
}

}  // namespace
}  // namespace stasis::mounts
