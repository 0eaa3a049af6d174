// SPDX-License-Identifier: Apache-2.0
#include "mounts/dump.h"

#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>

#include "mounts/fstypes.h"
#include "tests/unit/mounts/samples.h"

namespace stasis::mounts {
namespace {

constexpr uint32_t kNoCgroupNs = kAllNamespaces & ~static_cast<uint32_t>(CLONE_NEWCGROUP);
constexpr char kRoot[] = "1 0 254:0 /r / rw,relatime - ext4 /dev/vda rw\n";

Table table(const std::string& text) {
  auto t = Table::parse(text);
  EXPECT_TRUE(t) << t.error().line();
  return *std::move(t);
}

Options externals(std::vector<std::pair<std::string, std::string>> list) {
  Options options;
  for (auto& [key, name] : list) options.externals.push_back({"mnt", key, name});
  return options;
}

const pb::mnt_entry* find(const std::vector<pb::mnt_entry>& all, std::string_view mountpoint) {
  auto it = std::ranges::find_if(all, [&](const auto& e) { return e.mountpoint() == mountpoint; });
  return it == all.end() ? nullptr : &*it;
}

// The only obstacle of a container with kRoot and `lines`, or "".
std::string obstacle(const std::string& lines, const Options& options = {}, uint32_t own = kAllNamespaces) {
  auto errors = check(table(kRoot + lines), options, table(samples::kHost), own);
  if (errors.empty()) return "";
  EXPECT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].code(), Code::kUnsupportedMount);
  return errors[0].object() + ": " + errors[0].message();
}

// LXC names /dev/console only, and gives it back at both places or not at all.
TEST(Dump, LxcConsoleIsExternalAtBothPlaces) {
  const std::string lines =
      "2 1 0:40 / /dev rw - tmpfs none rw\n"
      "3 2 0:44 / /dev/pts rw - devpts devpts rw\n"
      "4 2 0:44 /0 /dev/lxc/console rw - devpts devpts rw\n"
      "5 2 0:44 /0 /dev/console rw - devpts devpts rw\n"
      "6 2 0:44 /1 /dev/lxc/tty1 rw - devpts devpts rw\n";
  auto entries = dump(table(kRoot + lines), externals({{"/dev/console", "console"}}), table(samples::kHost));
  ASSERT_TRUE(entries) << entries.error().line();
  EXPECT_EQ(find(*entries, "/dev/console")->ext_key(), "console");
  EXPECT_EQ(find(*entries, "/dev/lxc/console")->ext_key(), "console");
  EXPECT_FALSE(find(*entries, "/dev/lxc/tty1")->has_ext_key());
  EXPECT_FALSE(find(*entries, "/dev/pts")->has_ext_key());
}

TEST(Dump, RuncContainer) {
  Options options =
      externals({{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu"}, {"/proc/keys", "/dev/null"}, {"/nowhere", "x"}});
  Table t = table(samples::kRunc), host = table(samples::kHost);
  EXPECT_TRUE(check(t, options, host, kNoCgroupNs).empty());
  auto all = dump(t, options, host, kNoCgroupNs);
  ASSERT_TRUE(all) << all.error().line();
  ASSERT_EQ(all->size(), t.mounts.size());
  auto* root = find(*all, "/");
  EXPECT_EQ(root->fstype(), kFsUnsupported);
  EXPECT_EQ(root->root(), "/b/rootfs");
  EXPECT_FALSE(root->has_ext_key());
  auto* shm = find(*all, "/dev/shm");
  EXPECT_EQ(shm->fstype(), kFsTmpfs);
  EXPECT_EQ(shm->root_dev(), 43u);
  EXPECT_EQ(shm->flags(), uint32_t(MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME));
  EXPECT_EQ(shm->options(), "size=65536k");
  EXPECT_EQ(shm->source(), "shm");
  EXPECT_EQ(shm->parent_mnt_id(), 67u);
  EXPECT_EQ(find(*all, "/sys")->sb_flags(), uint32_t(MS_RDONLY));
  EXPECT_EQ(find(*all, "/dev/pts")->options(), "newinstance,gid=5,mode=620,ptmxmode=666");
  EXPECT_EQ(find(*all, "/proc/bus")->root(), "/bus");
  EXPECT_EQ(find(*all, "/proc/keys")->ext_key(), "/dev/null");
  EXPECT_FALSE(find(*all, "/proc/keys")->has_ext_mount());
  EXPECT_EQ(find(*all, "/dev")->flags(), uint32_t(MS_NOSUID | MS_STRICTATIME));
}

TEST(Dump, NamesEachObstacle) {
  EXPECT_EQ(obstacle("2 1 0:40 / /proc rw,relatime - proc proc rw\n"), "");
  EXPECT_EQ(obstacle("2 1 0:60 / /x rw - fuse.sshfs h:/ rw\n"),
            "mount /x (fuse.sshfs): a file system of type fuse.sshfs can only be mounted from outside");
  EXPECT_NE(obstacle("2 1 0:60 / /x rw,idmapped - tmpfs t rw\n").find("\"idmapped\""), std::string::npos);
  EXPECT_NE(obstacle("2 1 0:60 / / rw - tmpfs t rw\n").find("covers the root"), std::string::npos);
  EXPECT_NE(obstacle("2 1 0:60 / /x//deleted rw - tmpfs t rw\n").find("mountpoint was deleted"), std::string::npos);
  EXPECT_NE(obstacle("2 1 254:0 /r/f//deleted /x rw - ext4 /dev/vda rw\n").find("was deleted"), std::string::npos);
  EXPECT_NE(obstacle("2 1 0:60 /in /x rw - tmpfs t rw\n").find("only /in"), std::string::npos);
  EXPECT_NE(obstacle("2 1 254:0 /other /x rw - ext4 /dev/vda rw\n").find("from outside"), std::string::npos);
  EXPECT_NE(obstacle("2 1 0:60 / /p rw - devpts d rw\n3 1 0:60 /odd /x rw - devpts d rw\n").find("/odd"),
            std::string::npos);
}

TEST(Dump, BindsOfTheRootAndOfOwnFileSystems) {
  EXPECT_EQ(obstacle("2 1 254:0 /r/etc/hosts /etc/hosts ro,relatime - ext4 /dev/vda rw\n"), "");
  EXPECT_EQ(obstacle("2 1 0:60 / /t rw - tmpfs t rw\n3 1 0:60 /in /x rw - tmpfs t rw\n"), "");
  EXPECT_EQ(obstacle("2 1 0:60 / /p rw - devpts d rw\n3 1 0:60 /0 /dev/console rw - devpts d rw\n"), "");
  EXPECT_EQ(obstacle("2 1 0:61 /irq /proc/irq ro - proc proc rw\n"), "");  // proc can be mounted whole
}

TEST(Dump, InstancesOfTheHostAreNotTheContainers) {
  EXPECT_NE(obstacle("2 1 0:23 / /dev/shm rw - tmpfs tmpfs rw\n").find("belongs to the host"), std::string::npos);
  EXPECT_NE(obstacle("2 1 0:21 / /hostproc rw - proc proc rw\n").find("belongs to the host"), std::string::npos);
  EXPECT_EQ(obstacle("2 1 0:21 / /proc rw - proc proc rw\n", {}, kAllNamespaces & ~static_cast<uint32_t>(CLONE_NEWPID)),
            "");
  EXPECT_EQ(obstacle("2 1 0:6 /null /proc/kcore rw - devtmpfs devtmpfs rw\n"), "");
}

TEST(Dump, Cgroups) {
  std::string part = "2 1 0:29 /c1 /cg rw - cgroup cgroup rw,cpu\n";
  EXPECT_NE(obstacle(part, {}, kNoCgroupNs).find("without a cgroup namespace"), std::string::npos);
  EXPECT_EQ(obstacle("2 1 0:29 / /cg rw - cgroup cgroup rw,cpu\n", {}, kNoCgroupNs), "");
  auto all =
      dump(table(kRoot + part + "3 2 0:29 /c1/sub /cg/sub rw - cgroup cgroup rw,cpu\n"), {}, table(samples::kHost));
  ASSERT_TRUE(all) << all.error().line();
  EXPECT_EQ(find(*all, "/cg")->root(), "/");
  EXPECT_EQ(find(*all, "/cg/sub")->root(), "/sub");
}

TEST(Dump, LaterExternalEntryWinsAndStacksAreToldApart) {
  std::string lines = "2 1 8:17 /v /x rw - ext4 /dev/sdb1 rw\n3 2 0:60 / /x rw - tmpfs t rw\n";
  auto all = dump(table(kRoot + lines), externals({{"/x", "one"}, {"/x/", "two"}}), table(samples::kHost));
  ASSERT_TRUE(all) << all.error().line();
  EXPECT_EQ((*all)[1].ext_key(), "two");
  EXPECT_FALSE((*all)[2].has_ext_key());
  EXPECT_NE(obstacle("2 1 8:17 /v /x rw - ext4 /dev/sdb1 rw\n", externals({{"/x", ""}})).find("no name"),
            std::string::npos);
}

TEST(Dump, AutomaticExternals) {
  Options options;
  options.auto_ext_mnt = true;
  auto all =
      dump(table(std::string(kRoot) + "2 1 8:17 /v/w /x rw - ext4 /dev/sdb1 rw\n"), options, table(samples::kHost));
  ASSERT_TRUE(all) << all.error().line();
  EXPECT_EQ((*all)[1].ext_key(), kAutoKey);
  EXPECT_EQ((*all)[1].source(), "/data/v/w");
  std::string slave = "2 1 8:17 /v /x rw master:9 - ext4 /dev/sdb1 rw\n";
  EXPECT_NE(obstacle(slave, options).find("--enable-external-masters"), std::string::npos);
  options.ext_masters = true;
  EXPECT_EQ(obstacle(slave, options), "");
  std::string shared = "2 1 8:17 / /x rw shared:9 - ext4 /dev/sdb1 rw\n";
  EXPECT_NE(obstacle(shared, options).find("--enable-external-sharing"), std::string::npos);
  options.ext_sharing = true;
  EXPECT_EQ(obstacle(shared, options), "");
  EXPECT_NE(obstacle("2 1 8:33 / /x rw - ext4 /dev/sdc1 rw\n", options).find("does not have it"), std::string::npos);
}

TEST(Dump, Propagation) {
  EXPECT_TRUE(check(table(samples::kShared), {}, table(samples::kHost)).empty());
  auto all = dump(table(samples::kShared), {}, table(samples::kHost));
  ASSERT_TRUE(all);
  EXPECT_FALSE(check(table("1 0 254:0 /r / rw shared:100 - ext4 /dev/vda rw\n"), {}, table(samples::kHost)).empty());
  auto* d = find(*all, "/d");
  EXPECT_EQ(d->flags() & (MS_SHARED | MS_SLAVE), uint32_t(MS_SHARED | MS_SLAVE));
  EXPECT_EQ(d->shared_id(), 2u);
  EXPECT_EQ(d->master_id(), 1u);
  EXPECT_NE(obstacle("2 1 0:60 / /t rw master:5 - tmpfs t rw\n").find("slave of a mount outside"), std::string::npos);
  EXPECT_NE(obstacle("2 1 0:60 / /t rw - tmpfs t rw\n3 1 0:60 /in /x rw shared:5 - tmpfs t rw\n"
                     "4 1 0:60 / /y rw master:5 - tmpfs t rw\n")
                .find("master's peer group"),
            std::string::npos);
}

TEST(Dump, SkippedMountsMustBeLeaves) {
  Options options;
  options.skip_mounts = {"/x"};
  std::string lines = "2 1 0:60 / /x rw - fuse.f f rw\n";
  EXPECT_EQ(obstacle(lines, options), "");
  EXPECT_NE(obstacle(lines + "3 2 0:61 / /x/y rw - tmpfs t rw\n", options).find("to be skipped"), std::string::npos);
}

TEST(Dump, EnabledFileSystems) {
  std::string line = "2 1 0:60 / /huge rw - hugetlbfs h rw,pagesize=2M\n";
  EXPECT_NE(obstacle(line), "");
  Options options;
  options.enable_fs = {"hugetlbfs"};
  auto all = dump(table(kRoot + line), options, table(samples::kHost));
  ASSERT_TRUE(all);
  EXPECT_EQ((*all)[1].fstype(), kFsAuto);
  EXPECT_EQ((*all)[1].fsname(), "hugetlbfs");
}

TEST(ContentJobs, OnePerFileSystem) {
  Table t = table(samples::kRunc), host = table(samples::kHost);
  auto all = dump(t, externals({{"/sys/fs/cgroup/cpu", "c"}}), host, kNoCgroupNs);
  ASSERT_TRUE(all) << all.error().line();
  auto jobs = content_jobs(t, *all);
  std::vector<std::string> names;
  for (auto& j : jobs) names.push_back(j.kind == ContentJob::Kind::kArchive ? j.image_name : "empty " + j.mountpoint);
  EXPECT_EQ(names, (std::vector<std::string>{"tmpfs-dev-41.tar.gz.img", "tmpfs-dev-43.tar.gz.img", "empty /dev/mqueue",
                                             "tmpfs-dev-45.tar.gz.img", "tmpfs-dev-46.tar.gz.img"}));
  EXPECT_EQ(jobs[0].mnt_id, 67);
}

TEST(ContentJobs, PrefersAMountThatCanBeReached) {
  Table t = table(std::string(kRoot) +
                  "2 1 0:60 / /x rw - tmpfs t rw\n3 2 0:61 / /x rw - tmpfs u rw\n4 1 0:60 / /y rw - tmpfs t rw\n");
  auto all = dump(t, {}, table(samples::kHost));
  ASSERT_TRUE(all);
  auto jobs = content_jobs(t, *all);
  ASSERT_EQ(jobs.size(), 2u);
  EXPECT_EQ(jobs[0].mnt_id, 4);
  EXPECT_EQ(content_image_name(60), "tmpfs-dev-60.tar.gz.img");
}

TEST(Dump, UserNamespace) {
  const procfs::UserMaps users{{{{0, 100000, 65536}}}, {{{0, 200000, 65536}}}};
  const std::string devpts = "2 1 0:40 / /dev/pts rw - devpts devpts rw,gid=200005,mode=620\n";
  auto entries = dump(table(kRoot + devpts), {}, table(samples::kHost), kAllNamespaces, &users);
  ASSERT_TRUE(entries) << entries.error().line();
  EXPECT_EQ(find(*entries, "/dev/pts")->options(), "newinstance,gid=5,mode=620");
  entries = dump(table(std::string(kRoot) + "2 1 0:40 / /t rw - tmpfs t rw,uid=100007,gid=200008\n"), {},
                 table(samples::kHost), kAllNamespaces, &users);
  ASSERT_TRUE(entries) << entries.error().line();
  EXPECT_EQ(find(*entries, "/t")->options(), "uid=7,gid=8");

  auto errors = check(table(std::string(kRoot) + "2 1 0:40 / /t rw - tmpfs t rw,gid=5\n"), {}, table(samples::kHost),
                      kAllNamespaces, &users);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_NE(errors[0].message().find("gid=5"), std::string::npos);
  errors = check(table(std::string(kRoot) + "2 1 0:41 / /d rw - debugfs none rw\n"), {}, table(samples::kHost),
                 kAllNamespaces, &users);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_NE(errors[0].message().find("cannot be mounted in a user namespace"), std::string::npos);
  const auto sysfs = table(std::string(kRoot) + "2 1 0:99 / /sys rw - sysfs none rw\n");
  EXPECT_TRUE(check(sysfs, {}, table(samples::kHost), kAllNamespaces, &users).empty());
  constexpr uint32_t kHostNet = kAllNamespaces & ~static_cast<uint32_t>(CLONE_NEWNET);
  EXPECT_EQ(check(sysfs, {}, table(samples::kHost), kHostNet, &users).size(), 1u);
  EXPECT_TRUE(check(sysfs, {}, table(samples::kHost), kHostNet).empty());
}

}  // namespace
}  // namespace stasis::mounts
