// SPDX-License-Identifier: Apache-2.0
#include "mounts/plan.h"

#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>

#include "mounts/dump.h"
#include "tests/unit/mounts/samples.h"

namespace stasis::mounts {
namespace {

using From = PlannedMount::From;

pb::mnt_entry entry(uint32_t id, uint32_t parent, uint32_t dev, const std::string& root, const std::string& mountpoint,
                    uint32_t fstype) {
  pb::mnt_entry e;
  e.set_mnt_id(id);
  e.set_parent_mnt_id(parent);
  e.set_root_dev(dev);
  e.set_root(root);
  e.set_mountpoint(mountpoint);
  e.set_fstype(fstype);
  e.set_flags(MS_RELATIME);
  e.set_source("s");
  e.set_options("");
  return e;
}

std::vector<pb::mnt_entry> tree(std::vector<pb::mnt_entry> more) {
  std::vector<pb::mnt_entry> all{entry(1, 0, 99, "/r", "/", kFsUnsupported)};
  for (auto& e : more) all.push_back(std::move(e));
  return all;
}

Options external(const std::string& name, const std::string& path) {
  Options options;
  options.externals.push_back({"mnt", name, path});
  return options;
}

Code refusal(const std::vector<pb::mnt_entry>& entries, const Options& options = {}) {
  auto plan = plan_restore(entries, options);
  EXPECT_FALSE(plan);
  return plan ? Code::kInternal : plan.error().code();
}

const PlannedMount& at(const RestorePlan& plan, std::string_view mountpoint) {
  return *std::ranges::find_if(plan.mounts, [&](const auto& m) { return m.mountpoint == mountpoint; });
}

// The map of LXC has an empty source when the console was the container's own: then it is made anew.
TEST(Plan, LxcConsoleWithoutSource) {
  auto console = entry(3, 1, 44, "/0", "/dev/console", find_fstype("devpts")->code);
  console.set_ext_key("console");
  const auto with = tree({entry(2, 1, 44, "/", "/dev/pts", find_fstype("devpts")->code), console});
  auto plan = plan_restore(with, external("console", ""));
  ASSERT_TRUE(plan) << plan.error().line();
  EXPECT_EQ(at(*plan, "/dev/console").from, From::kStaged);
  EXPECT_EQ(at(*plan, "/dev/console").subpath, "0");
  EXPECT_EQ(at(*plan, "/dev/console").staged, at(*plan, "/dev/pts").staged);
  EXPECT_EQ(refusal(with), Code::kMountTarget);
  auto given = plan_restore(with, external("console", "/dev/pts/7"));
  ASSERT_TRUE(given) << given.error().line();
  EXPECT_EQ(at(*given, "/dev/console").from, From::kExternal);
  EXPECT_EQ(at(*given, "/dev/console").host_path, "/dev/pts/7");
  EXPECT_EQ(refusal(tree({console}), external("console", "")), Code::kMountTarget);  // its devpts is the host's
}

TEST(Plan, RuncContainer) {
  auto t = Table::parse(samples::kRunc), host = Table::parse(samples::kHost);
  Options options;
  options.externals = {{"mnt", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu/new"}, {"mnt", "/proc/keys", "/dev/null"}};
  auto entries = dump(*t, options, *host, 0);
  ASSERT_TRUE(entries) << entries.error().line();
  options.externals.push_back({"mnt", "/dev/null", "/dev/null"});
  auto plan = plan_restore(*entries, options);
  ASSERT_FALSE(plan);  // dump's values are names; restore looks names up
  options.externals.push_back({"mnt", "/sys/fs/cgroup/cpu/new", "/host/cpu"});
  plan = plan_restore(*entries, options);
  ASSERT_TRUE(plan) << plan.error().line();
  EXPECT_EQ(plan->mounts[0].from, From::kRoot);
  EXPECT_EQ(at(*plan, "/sys/fs/cgroup/cpu").host_path, "/host/cpu");
  EXPECT_EQ(at(*plan, "/proc/bus").subpath, "bus");
  EXPECT_EQ(at(*plan, "/proc/bus").staged, at(*plan, "/proc").staged);
  EXPECT_EQ(at(*plan, "/proc/bus").flags, uint32_t(MS_RDONLY | MS_RELATIME));
  EXPECT_EQ(plan->path_of(69), "/dev/shm");
  EXPECT_EQ(plan->path_of(1000), "");
  EXPECT_EQ(plan->images().size(), 4u);
  for (size_t i = 1; i < plan->mounts.size(); ++i) EXPECT_LT(plan->mounts[i].parent, static_cast<int>(i));
}

TEST(Plan, ReadsImagesOfCriu) {
  auto old = entry(2, 1, 50, "name", "./data", kFsUnsupported);
  old.set_ext_mount(true);
  auto entries = tree({old});
  entries[0].set_mountpoint("./");
  entries[0].set_root("./");
  auto plan = plan_restore(entries, external("name", "/host"));
  ASSERT_TRUE(plan) << plan.error().line();
  EXPECT_EQ(plan->mounts[1].mountpoint, "/data");
  EXPECT_EQ(plan->mounts[1].host_path, "/host");
}

TEST(Plan, BindsOfTheRoot) {
  auto plan = plan_restore(tree({entry(2, 1, 99, "/r/etc/x", "/mnt", kFsUnsupported)}), {});
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->mounts[1].from, From::kRoot);
  EXPECT_EQ(plan->mounts[1].subpath, "etc/x");
  EXPECT_EQ(refusal(tree({entry(2, 1, 99, "/elsewhere", "/mnt", kFsUnsupported)})), Code::kUnsupportedMount);
}

TEST(Plan, ExternalMountsNeedASource) {
  auto e = entry(2, 1, 50, "/x", "/data", kFsUnsupported);
  e.set_ext_key("vol");
  EXPECT_EQ(refusal(tree({e})), Code::kMountTarget);
  EXPECT_EQ(refusal(tree({e}), external("other", "/p")), Code::kMountTarget);
  EXPECT_EQ(refusal(tree({e}), external("vol", "")), Code::kMountTarget);
  Options options = external("vol", "/first");
  options.externals.push_back({"mnt", "vol", "/second"});
  auto plan = plan_restore(tree({e}), options);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->mounts[1].host_path, "/second");
  e.set_ext_key("CRIU:EXTERNAL_DEV");
  EXPECT_EQ(refusal(tree({e})), Code::kUnsupportedMount);
}

TEST(Plan, AutomaticExternalsOnlyIfAskedForAgain) {
  auto e = entry(2, 1, 50, "/x", "/data", kFsUnsupported);
  e.set_ext_key("CRIU:AUTOGENERATED");
  e.set_source("/host/dir");
  EXPECT_EQ(refusal(tree({e})), Code::kMountTarget);
  Options options;
  options.auto_ext_mnt = true;
  auto plan = plan_restore(tree({e}), options);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->mounts[1].host_path, "/host/dir");
  e.set_source("/host/../etc");
  EXPECT_EQ(refusal(tree({e}), options), Code::kImageCorrupt);
}

TEST(Plan, HostileTrees) {
  auto tmpfs = [](uint32_t id, uint32_t parent, const std::string& mountpoint) {
    return entry(id, parent, 60 + id, "/", mountpoint, kFsTmpfs);
  };
  EXPECT_EQ(refusal({}), Code::kImageCorrupt);
  EXPECT_EQ(refusal(tree({tmpfs(2, 9, "/a")})), Code::kImageCorrupt);
  EXPECT_EQ(refusal(tree({tmpfs(2, 3, "/a"), tmpfs(3, 2, "/a")})), Code::kImageCorrupt);
  EXPECT_EQ(refusal(tree({tmpfs(1, 1, "/a")})), Code::kImageCorrupt);
  EXPECT_EQ(refusal(tree({tmpfs(2, 1, "/a"), tmpfs(3, 2, "/b")})), Code::kImageCorrupt);
  EXPECT_EQ(refusal(tree({tmpfs(2, 1, "/")})), Code::kUnsupportedMount);
  for (const char* bad : {"a", "/a/../../b", "/a//b", "", "/a/."})
    EXPECT_EQ(refusal(tree({tmpfs(2, 1, bad)})), Code::kImageCorrupt);
  EXPECT_EQ(refusal(tree({entry(2, 1, 60, "/../x", "/a", kFsTmpfs)})), Code::kImageCorrupt);
  EXPECT_EQ(refusal(tree({entry(0xffffffff, 1, 60, "/", "/a", kFsTmpfs)})), Code::kImageCorrupt);
  auto zero = tmpfs(2, 1, "/a");
  zero.set_options(std::string("a\0b", 3));
  EXPECT_EQ(refusal(tree({zero})), Code::kImageCorrupt);
  auto deleted = tmpfs(2, 1, "/a");
  deleted.set_deleted(true);
  EXPECT_EQ(refusal(tree({deleted})), Code::kUnsupportedMount);
  std::vector<pb::mnt_entry> many;
  for (uint32_t i = 0; i < 10001; ++i) many.push_back(tmpfs(i + 2, 1, cat("/m", i)));
  EXPECT_EQ(refusal(tree(many)), Code::kImageCorrupt);
}

TEST(Plan, AttachesInImageOrderButNeverUnderACover) {
  auto plan = plan_restore({entry(7, 3, 70, "/", "/late/in", kFsTmpfs), entry(4, 1, 61, "/", "/e", kFsTmpfs),
                            entry(5, 1, 62, "/", "/e/x/y", kFsTmpfs), entry(1, 0, 99, "/r", "/", kFsUnsupported),
                            entry(6, 1, 63, "/", "/ex", kFsTmpfs), entry(3, 1, 64, "/", "/late", kFsTmpfs)},
                           {});
  ASSERT_TRUE(plan) << plan.error().line();
  std::vector<std::string> order;
  for (const auto& m : plan->mounts) order.push_back(cat(m.mountpoint, " ", m.rank));
  EXPECT_EQ(order, (std::vector<std::string>{"/ 3", "/e/x/y 2", "/e 1", "/ex 4", "/late 5", "/late/in 0"}));
}

TEST(Plan, FileSystemsThatCannotBeRebuilt) {
  EXPECT_EQ(refusal(tree({entry(2, 1, 60, "/", "/a", 17)})), Code::kUnsupportedMount);
  EXPECT_EQ(refusal(tree({entry(2, 1, 60, "/", "/a", 4711)})), Code::kUnsupportedMount);
  auto any = entry(2, 1, 60, "/", "/a", kFsAuto);
  any.set_fsname("ext4");
  Options all;
  all.enable_fs = {"all"};
  EXPECT_EQ(refusal(tree({any}), all), Code::kUnsupportedMount);
  any.set_fsname("hugetlbfs");
  EXPECT_EQ(refusal(tree({any})), Code::kUnsupportedMount);
  EXPECT_TRUE(plan_restore(tree({any}), all));
  EXPECT_EQ(refusal(tree({entry(2, 1, 60, "/", "/a", kFsTmpfs), entry(3, 1, 60, "/", "/b", 1)})), Code::kImageCorrupt);
}

TEST(Plan, CgroupOptionsCannotNameAProgram) {
  auto e = entry(2, 1, 60, "/", "/cg", kFsCgroup);
  e.set_options("cpu,release_agent=/evil,xattr");
  auto plan = plan_restore(tree({e}), {});
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->staged[0].data, "cpu,xattr");
}

TEST(Plan, TimeFlagsAreOneOfThree) {
  auto e = entry(2, 1, 60, "/", "/a", kFsTmpfs);
  e.set_flags(MS_NOSUID);
  auto plan = plan_restore(tree({e}), {});
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->mounts[1].flags, uint32_t(MS_NOSUID | MS_RELATIME));
}

TEST(Plan, PropagationIsOrdered) {
  auto t = Table::parse(samples::kShared), host = Table::parse(samples::kHost);
  auto entries = dump(*t, {}, *host);
  ASSERT_TRUE(entries);
  auto plan = plan_restore(*entries, {});
  ASSERT_TRUE(plan) << plan.error().line();
  std::vector<std::string> steps;
  for (auto& s : plan->propagation)
    steps.push_back(cat(plan->mounts[s.mount].mountpoint, s.join < 0 ? "" : " of " + plan->mounts[s.join].mountpoint,
                        s.slave ? " slave" : "", s.shared ? " shared" : ""));
  EXPECT_EQ(steps, (std::vector<std::string>{"/a shared", "/b of /a", "/d of /a slave shared", "/c of /a slave"}));
}

TEST(Plan, PropagationThatCannotBe) {
  auto shared = [](uint32_t id, const std::string& mountpoint, const std::string& root, uint32_t group,
                   uint32_t master) {
    auto e = entry(id, 1, 60, root, mountpoint, kFsTmpfs);
    if (group) e.set_shared_id(group);
    if (master) e.set_master_id(master);
    return e;
  };
  EXPECT_EQ(refusal(tree({shared(2, "/a", "/x", 5, 0), shared(3, "/b", "/y", 5, 0)})), Code::kUnsupportedMount);
  EXPECT_EQ(refusal(tree({shared(2, "/a", "/", 5, 6), shared(3, "/b", "/", 6, 5)})), Code::kImageCorrupt);
  EXPECT_EQ(refusal(tree({shared(2, "/a", "/", 0, 6)})), Code::kUnsupportedMount);
  auto outer = shared(2, "/a", "/", 5, 0);
  outer.set_ext_key("v");
  auto inside = entry(3, 2, 61, "/", "/a/b", kFsTmpfs);
  EXPECT_EQ(refusal(tree({outer, inside}), external("v", "/p")), Code::kUnsupportedMount);
  outer.set_internal_sharing(true);
  EXPECT_TRUE(plan_restore(tree({outer, inside}), external("v", "/p")));
}

TEST(Plan, MissingSourcesAreListed) {
  auto e = entry(2, 1, 50, "/x", "/data", kFsUnsupported);
  e.set_ext_key("vol");
  auto plan = plan_restore(tree({e}), external("vol", "/no/such/path"));
  ASSERT_TRUE(plan);
  auto missing = missing_sources(*plan);
  ASSERT_EQ(missing.size(), 1u);
  EXPECT_EQ(missing[0].code(), Code::kMountTarget);
  EXPECT_EQ(missing[0].object(), "mount /data");
  plan = plan_restore(tree({e}), external("vol", "/"));
  EXPECT_TRUE(missing_sources(*plan).empty());
}

TEST(Verify, FindsEveryDifference) {
  auto t = Table::parse(samples::kShared), host = Table::parse(samples::kHost);
  auto plan = plan_restore(*dump(*t, {}, *host), {});
  ASSERT_TRUE(plan);
  auto same = verify(*plan, *t);
  EXPECT_TRUE(same) << same.error().line();
  std::string text = samples::kShared;
  auto change = [&](std::string_view from, std::string_view to) { text.replace(text.find(from), from.size(), to); };
  change("/c rw,relatime master:1", "/c ro,relatime master:1");
  change("/a rw,relatime shared:1", "/a rw,relatime");
  change("66 64 0:47 / /oc rw,relatime - tmpfs high rw\n", "");
  change("- tmpfs cover rw", "- ramfs cover rw");
  text += "90 77 0:70 / /new rw,relatime - tmpfs n rw\n";
  auto now = Table::parse(text);
  ASSERT_TRUE(now);
  auto differs = verify(*plan, *now);
  ASSERT_FALSE(differs);
  EXPECT_EQ(differs.error().also().size(), 4u);
}

}  // namespace
}  // namespace stasis::mounts
