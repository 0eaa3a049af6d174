// SPDX-License-Identifier: Apache-2.0
#include "cgroups/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cgroups/root_option.h"
#include "tests/unit/cgroups/fake_tree.h"

namespace stasis::cgroups {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

void add_set(pb::cgroup_entry& entry, uint32_t id, const Membership& membership, uint32_t prefix = 0) {
  auto* set = entry.add_sets();
  set->set_id(id);
  for (const auto& [name, path] : membership) {
    auto* member = set->add_ctls();
    member->set_name(name);
    member->set_path(path);
    if (prefix) member->set_cgns_prefix(prefix);
  }
}

pb::cgroup_dir_entry* add_dir(pb::cgroup_entry& entry, const std::vector<std::string>& names, const std::string& dir) {
  auto* controller = entry.add_controllers();
  for (const auto& name : names) controller->add_cnames(name);
  auto* out = controller->add_dirs();
  out->set_dir_name(dir);
  return out;
}

void add_property(pb::cgroup_dir_entry* dir, const std::string& name, const std::string& value) {
  auto* property = dir->add_properties();
  property->set_name(name);
  property->set_value(value);
}

PlanInput input(std::span<const Hierarchy> host, const std::vector<std::string>& roots = {}) {
  PlanInput out{.mode = CgroupMode::kSoft, .hierarchies = host};
  for (const auto& root : roots) out.roots.push_back(must(parse_cgroup_root(root)));
  return out;
}

std::vector<std::string> places(const pb::cgroup_entry& entry, const PlanInput& in, uint32_t set = 1) {
  const RestorePlan plan = must(plan_restore(entry, in));
  const PlannedSet* found = plan.find(set);
  return found ? describe(*found, in.hierarchies) : std::vector<std::string>{"no such set"};
}

const std::vector<Hierarchy> kHost{v1({"memory"}), v1({"cpuacct", "cpu"}), v1({"blkio"}), v1({"name=systemd"})};
const Membership kContainer{{"memory", "/c"}, {"cpuacct,cpu", "/c"}, {"blkio", "/c"}, {"name=systemd", "/c"}};
const std::vector<std::string> kRoots{"/n", "cpuacct,cpu:/s", "name=systemd:/d"};

TEST(CgroupPlan, RootsOverridePerController) {
  pb::cgroup_entry entry;
  add_set(entry, 1, kContainer);
  EXPECT_THAT(places(entry, input(kHost, kRoots)),
              ElementsAre("memory:/n", "cpuacct,cpu:/s", "blkio:/n", "name=systemd:/d"));
}

TEST(CgroupPlan, SubgroupsFollow) {
  pb::cgroup_entry entry;
  add_set(entry, 1, kContainer);
  add_set(entry, 2, {{"memory", "/c/sub"}, {"cpuacct,cpu", "/c/sub"}, {"blkio", "/c"}, {"name=systemd", "/c/a/b"}});
  EXPECT_THAT(places(entry, input(kHost, kRoots), 2),
              ElementsAre("memory:/n/sub", "cpuacct,cpu:/s/sub", "blkio:/n", "name=systemd:/d/a/b"));
}

TEST(CgroupPlan, TopIsTheDumpedDirectoryEvenIfAllTasksAreBelow) {
  pb::cgroup_entry entry;
  add_set(entry, 1, {{"memory", "/c/init"}});
  add_dir(entry, {"memory"}, "c")->add_children()->set_dir_name("init");
  const std::vector<Hierarchy> host{v1({"memory"})};
  EXPECT_THAT(places(entry, input(host, {"/n"})), ElementsAre("memory:/n/init"));
}

TEST(CgroupPlan, WithoutRootsPathsStay) {
  pb::cgroup_entry entry;
  add_set(entry, 1, kContainer);
  EXPECT_THAT(places(entry, input(kHost)), ElementsAre("memory:/c", "cpuacct,cpu:/c", "blkio:/c", "name=systemd:/c"));
}

TEST(CgroupPlan, JoinedInTheOtherOrderOrSeparate) {
  pb::cgroup_entry entry;
  add_set(entry, 1, {{"cpuacct,cpu", "/c"}});
  auto* dir = add_dir(entry, {"cpuacct", "cpu"}, "c");
  add_property(dir, "cpu.shares", "512");
  const std::vector<Hierarchy> other{v1({"cpu", "cpuacct"})};
  EXPECT_THAT(places(entry, input(other, {"cpuacct,cpu:/s"})), ElementsAre("cpu,cpuacct:/s"));
  const std::vector<Hierarchy> separate{v1({"cpu"}), v1({"cpuacct"})};
  const auto in = input(separate, {"cpuacct,cpu:/s"});
  EXPECT_THAT(places(entry, in), ElementsAre("cpu:/s", "cpuacct:/s"));
  const RestorePlan plan = must(plan_restore(entry, in));
  ASSERT_EQ(plan.dirs.size(), 2u);
  ASSERT_EQ(plan.dirs[0].properties.size(), 1u) << "cpu.shares belongs to cpu";
  EXPECT_EQ(plan.dirs[0].properties[0].name, "cpu.shares");
  EXPECT_TRUE(plan.dirs[1].properties.empty()) << "and not to cpuacct";
}

TEST(CgroupPlan, SeparateJoinedHereMustAgree) {
  const std::vector<Hierarchy> host{v1({"cpu", "cpuacct"})};
  pb::cgroup_entry same, different;
  add_set(same, 1, {{"cpu", "/c"}, {"cpuacct", "/c"}});
  EXPECT_THAT(places(same, input(host)), ElementsAre("cpu,cpuacct:/c"));
  add_set(different, 1, {{"cpu", "/a"}, {"cpuacct", "/b"}});
  const auto plan = plan_restore(different, input(host));
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code(), Code::kCgroup);
  EXPECT_THAT(places(different, input(host, {"/n"})), ElementsAre("cpu,cpuacct:/n"));
}

TEST(CgroupPlan, HierarchyTheHostLacksIsSkipped) {
  pb::cgroup_entry entry;
  add_set(entry, 1, {{"memory", "/c"}, {"net_cls", "/c"}});
  const std::vector<Hierarchy> host{v1({"memory"})};
  EXPECT_THAT(places(entry, input(host)), ElementsAre("memory:/c"));
}

TEST(CgroupPlan, RootGivesAPlaceInAHierarchyTheImagesLack) {
  pb::cgroup_entry entry;
  add_set(entry, 1, {{"memory", "/c"}});
  const std::vector<Hierarchy> host{v2({"memory"})};
  EXPECT_THAT(places(entry, input(host, {"/n"})), ElementsAre(":/n"));
  EXPECT_THAT(places(entry, input(host)), ElementsAre());
}

TEST(CgroupPlan, TaskInTheRootOfAHierarchy) {
  pb::cgroup_entry entry;
  add_set(entry, 1, {{"memory", "/"}, {"pids", "/c"}});
  add_set(entry, 2, {{"memory", "/c"}, {"pids", "/c"}});
  const std::vector<Hierarchy> host{v1({"memory"}), v1({"pids"})};
  EXPECT_THAT(places(entry, input(host)), ElementsAre("memory:/", "pids:/c"));
  EXPECT_THAT(places(entry, input(host, {"/n"})), ElementsAre("memory:/n", "pids:/n"));
  EXPECT_THAT(places(entry, input(host, {"/n"}), 2), ElementsAre("memory:/n", "pids:/n"));
  for (const PlannedDir& dir : must(plan_restore(entry, input(host))).dirs) EXPECT_EQ(dir.path, "/c");
}

TEST(CgroupPlan, HostTreeInForeignImagesIsLeftOut) {
  pb::cgroup_entry entry;
  add_set(entry, 1, {{"memory", "/"}});
  add_set(entry, 2, {{"memory", "/c"}});
  auto* root = add_dir(entry, {"memory"}, "");
  add_property(root, "memory.limit_in_bytes", "1");
  root->add_children()->set_dir_name("system.slice");
  auto* own = root->add_children();
  own->set_dir_name("c");
  own->add_children()->set_dir_name("sub");
  const std::vector<Hierarchy> host{v1({"memory"})};
  std::vector<std::string> paths;
  for (const PlannedDir& dir : must(plan_restore(entry, input(host))).dirs) paths.push_back(dir.path);
  EXPECT_THAT(paths, ElementsAre("/c", "/c/sub"));
}

TEST(CgroupPlan, DirectoriesParentsFirstWithPropertiesInOrder) {
  pb::cgroup_entry entry;
  add_set(entry, 1, {{"memory", "/c/sub"}});
  auto* top = add_dir(entry, {"memory"}, "c");
  add_property(top, "memory.memsw.limit_in_bytes", "200");
  add_property(top, "memory.limit_in_bytes", "100");
  add_property(top, "release_agent", "/bin/evil");
  top->mutable_dir_perms()->set_mode(0106755);
  top->mutable_dir_perms()->set_uid(7);
  top->mutable_dir_perms()->set_gid(8);
  top->add_children()->set_dir_name("sub");
  top->add_children()->set_dir_name("empty");
  const std::vector<Hierarchy> host{v1({"memory"})};
  const RestorePlan plan = must(plan_restore(entry, input(host, {"/n/deep"})));
  ASSERT_EQ(plan.dirs.size(), 3u);
  EXPECT_EQ(plan.dirs[0].path, "/n/deep");
  EXPECT_EQ(plan.dirs[1].path, "/n/deep/empty");
  EXPECT_EQ(plan.dirs[2].path, "/n/deep/sub");
  ASSERT_EQ(plan.dirs[0].properties.size(), 2u);
  EXPECT_EQ(plan.dirs[0].properties[0].name, "memory.limit_in_bytes");
  EXPECT_EQ(plan.dirs[0].properties[1].value, "200");
  EXPECT_EQ(plan.dirs[0].perms, (Perms{0755, 7, 8}));
}

TEST(CgroupPlan, FrozenStateIsKeptApart) {
  pb::cgroup_entry entry;
  add_set(entry, 1, {{"freezer", "/c"}, {"", "/c"}});
  add_property(add_dir(entry, {"freezer"}, "c"), "freezer.state", "FROZEN");
  add_property(add_dir(entry, {""}, "c"), "cgroup.freeze", "0");
  const std::vector<Hierarchy> host{v1({"freezer"}), v2()};
  const RestorePlan plan = must(plan_restore(entry, input(host)));
  ASSERT_EQ(plan.dirs.size(), 2u);
  EXPECT_TRUE(plan.dirs[0].frozen);
  EXPECT_TRUE(plan.dirs[0].properties.empty());
  EXPECT_FALSE(plan.dirs[1].frozen);
}

TEST(CgroupPlan, NamespacePrefixMovesAlong) {
  pb::cgroup_entry entry;
  add_set(entry, 1, {{"", "/old/c/init.scope"}}, 6);
  const std::vector<Hierarchy> host{v2()};
  const RestorePlan plan = must(plan_restore(entry, input(host, {"/n"})));
  ASSERT_EQ(plan.sets[0].placements.size(), 1u);
  EXPECT_EQ(plan.sets[0].placements[0].path, "/n/init.scope");
  EXPECT_EQ(plan.sets[0].placements[0].prefix, "/n");
  EXPECT_EQ(plan.dirs.size(), 2u);
  for (const uint32_t bad : {2u, 5u, 100u}) {
    pb::cgroup_entry hostile;
    add_set(hostile, 1, {{"", "/old/c/x"}}, bad);
    const auto result = plan_restore(hostile, input(host));
    ASSERT_FALSE(result) << bad;
    EXPECT_EQ(result.error().code(), Code::kImageCorrupt);
  }
}

TEST(CgroupPlan, StaysWhereTheClientPutTheEngine) {
  pb::cgroup_entry entry;
  add_set(entry, 1, {{"", "/old"}}, 4);
  add_set(entry, 2, {{"", "/old/sub"}}, 4);
  const std::vector<Hierarchy> host{v2({"memory"})};
  auto in = input(host);
  in.own = {{"", "/new"}};
  EXPECT_THAT(places(entry, in), ElementsAre(":/old"));
  in.stay_with_engine = true;
  EXPECT_THAT(places(entry, in), ElementsAre(":/new"));
  EXPECT_THAT(places(entry, in, 2), ElementsAre(":/new/sub"));
  EXPECT_TRUE(must(plan_restore(entry, in)).sets[0].placements[0].inherited);
  in.own = {{"", "/"}};
  EXPECT_THAT(places(entry, in), ElementsAre(":/old"));
  in.own = {{"", "/new"}};
  in.roots = {{{}, "/n"}};
  EXPECT_THAT(places(entry, in), ElementsAre(":/n"));
}

TEST(CgroupPlan, MovedByClient) {
  EXPECT_TRUE(moved_by_client({{"", "/c"}}, {{"", "/user.slice"}}));    // runc
  EXPECT_FALSE(moved_by_client({{"", "/podman"}}, {{"", "/podman"}}));  // crun
  EXPECT_FALSE(moved_by_client({{"", "/"}}, {{"", "/user.slice"}}));    // LXC
  EXPECT_FALSE(moved_by_client({{"cpu", "/c"}}, {{"cpu", "/"}}));
}

TEST(CgroupPlan, IgnorePlansNothing) {
  pb::cgroup_entry entry;
  add_set(entry, 1, kContainer);
  auto in = input(kHost, {"/n"});
  in.mode = CgroupMode::kIgnore;
  const RestorePlan plan = must(plan_restore(entry, in));
  EXPECT_TRUE(plan.sets.empty());
  EXPECT_TRUE(plan.dirs.empty());
}

TEST(CgroupPlan, HostileImagesAreRefused) {
  const std::vector<Hierarchy> host{v1({"memory"})};
  const auto refused = [&](const pb::cgroup_entry& entry) {
    const auto plan = plan_restore(entry, input(host));
    return !plan && plan.error().code() == Code::kImageCorrupt;
  };
  pb::cgroup_entry dots, child, twice, member, deep, huge;
  add_set(dots, 1, {{"memory", "/c/../../x"}});
  EXPECT_TRUE(refused(dots));
  add_set(child, 1, {{"memory", "/c"}});
  add_dir(child, {"memory"}, "c")->add_children()->set_dir_name("../../etc");
  EXPECT_TRUE(refused(child));
  add_set(twice, 1, {{"memory", "/c"}});
  add_set(twice, 1, {{"memory", "/d"}});
  EXPECT_TRUE(refused(twice));
  add_set(member, 1, {{"memory", "/c"}});
  auto* again = member.mutable_sets(0)->add_ctls();
  again->set_name("memory");
  again->set_path("/d");
  EXPECT_TRUE(refused(member));
  add_set(deep, 1, {{"memory", "/c"}});
  auto* dir = add_dir(deep, {"memory"}, "c");
  for (int i = 0; i < 300; ++i) {
    dir = dir->add_children();
    dir->set_dir_name("x");
  }
  EXPECT_TRUE(refused(deep));
  add_set(huge, 1, {{"memory", "/c"}});
  add_property(add_dir(huge, {"memory"}, "c"), "memory.limit_in_bytes", std::string(1 << 20, '1'));
  EXPECT_TRUE(refused(huge));
}

}  // namespace
}  // namespace stasis::cgroups
