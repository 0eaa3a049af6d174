// SPDX-License-Identifier: Apache-2.0
#include "cgroups/dump.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/cgroups/fake_tree.h"

namespace stasis::cgroups {
namespace {

using ::testing::ElementsAre;

class CgroupDump : public ::testing::Test {
 protected:
  void SetUp() override {
    tree_.file("memory/memory.limit_in_bytes", "9223372036854771712\n");
    tree_.file("memory/c/memory.limit_in_bytes", "104857600\n");
    tree_.file("memory/c/memory.oom_control", "oom_kill_disable 1\nunder_oom 0\n");
    tree_.file("memory/c/memory.usage_in_bytes", "4096\n");
    tree_.file("memory/c/sub/memory.limit_in_bytes", "1048576\n");
    tree_.file("memory/c/empty/notify_on_release", "0\n");
    tree_.file("memory/other/memory.limit_in_bytes", "1\n");
    tree_.file("unified/cgroup.controllers", "pids\n");
    tree_.file("unified/c/cgroup.type", "domain\n");
    tree_.file("unified/c/pids.max", "77\n");
    tree_.file("unified/c/cgroup.freeze", "0\n");
    tree_.file("unified/c/cgroup.procs", "1\n2\n");
  }

  pb::cgroup_entry run(const std::vector<TaskMembership>& tasks, const DumpOptions& options = {}) {
    hierarchies_ = must(Hierarchies::open_below(tree_.root(), {v1({"memory"}), v2()}));
    Dumped dumped = must(dump(hierarchies_, options, tasks));
    sets_ = dumped.set_of;
    return dumped.entry;
  }

  static std::vector<std::string> paths(const pb::cg_controller_entry& controller) {
    std::vector<std::string> out;
    for (const auto& dir : controller.dirs()) add(dir, "", out);
    std::ranges::sort(out);
    return out;
  }
  static void add(const pb::cgroup_dir_entry& dir, const std::string& parent, std::vector<std::string>& out) {
    const std::string path = parent + "/" + dir.dir_name();
    out.push_back(path);
    for (const auto& child : dir.children()) add(child, path, out);
  }
  static std::string value(const pb::cgroup_dir_entry& dir, const std::string& name) {
    for (const auto& property : dir.properties())
      if (property.name() == name) return property.value();
    return "absent";
  }

  FakeTree tree_;
  Hierarchies hierarchies_;
  std::map<pid_t, uint32_t> sets_;
};

TEST_F(CgroupDump, TreeAndLimitsOfTheContainerOnly) {
  const auto entry = run({{10, {{"memory", "/c"}, {"", "/c"}}},
                          {11, {{"memory", "/c/sub"}, {"", "/c"}}},
                          {12, {{"memory", "/c"}, {"", "/c"}}}});
  EXPECT_EQ(entry.sets_size(), 2);
  EXPECT_EQ(sets_.at(10), 1u);
  EXPECT_EQ(sets_.at(11), 2u);
  EXPECT_EQ(sets_.at(12), 1u);
  ASSERT_EQ(entry.controllers_size(), 2);
  const auto& memory = entry.controllers(0);
  EXPECT_EQ(memory.cnames(0), "memory");
  EXPECT_THAT(paths(memory), ElementsAre("/c", "/c/empty", "/c/sub"));
  EXPECT_EQ(value(memory.dirs(0), "memory.limit_in_bytes"), "104857600");
  EXPECT_EQ(value(memory.dirs(0), "memory.oom_control"), "1");
  EXPECT_EQ(value(memory.dirs(0), "memory.usage_in_bytes"), "absent");
  EXPECT_EQ(memory.dirs(0).dir_perms().mode(), 0755u);
  const auto& unified = entry.controllers(1);
  EXPECT_EQ(unified.cnames(0), "");
  EXPECT_EQ(value(unified.dirs(0), "pids.max"), "77");
  EXPECT_EQ(value(unified.dirs(0), "cgroup.procs"), "") << "only its owner matters";
}

TEST_F(CgroupDump, TaskInTheRootRecordsMembershipOnly) {
  const auto entry = run({{10, {{"memory", "/"}, {"", "/c"}}}});
  EXPECT_EQ(entry.controllers(0).dirs_size(), 0);
  ASSERT_EQ(entry.sets(0).ctls_size(), 2);
  EXPECT_EQ(entry.sets(0).ctls(1).path(), "/");
}

TEST_F(CgroupDump, TasksFarApartDoNotDragTheHostIn) {
  tree_.file("memory/slice/a/notify_on_release", "0\n");
  tree_.file("memory/slice/b/notify_on_release", "0\n");
  tree_.file("memory/slice/host/notify_on_release", "0\n");
  const auto near = run({{10, {{"memory", "/slice/a"}}}, {11, {{"memory", "/slice/b"}}}});
  EXPECT_THAT(paths(near.controllers(0)), ElementsAre("/slice", "/slice/a", "/slice/b"));
  const auto far = run({{10, {{"memory", "/slice/a"}}}, {11, {{"memory", "/c/sub"}}}, {12, {{"memory", "/"}}}});
  EXPECT_THAT(paths(far.controllers(0)), ElementsAre("/c/sub", "/slice/a"));
}

TEST_F(CgroupDump, RootOptionWidensTheWalk) {
  DumpOptions options;
  options.roots = {{{"memory"}, "/c"}};
  const auto entry = run({{10, {{"memory", "/c/sub"}}}}, options);
  EXPECT_THAT(paths(entry.controllers(0)), ElementsAre("/c", "/c/empty", "/c/sub"));
  options.roots = {{{"memory"}, "/"}};
  EXPECT_THAT(paths(run({{10, {{"memory", "/c/sub"}}}}, options).controllers(0)), ElementsAre("/c/sub"));
  options.roots = {{{"memory"}, "/elsewhere"}};
  EXPECT_THAT(paths(run({{10, {{"memory", "/c/sub"}}}}, options).controllers(0)), ElementsAre("/c/sub"));
}

TEST_F(CgroupDump, NamespacePrefix) {
  const auto entry = run({{10, {{"memory", "/c/sub"}, {"", "/"}}, {{"memory", "/c"}, {"", "/"}}}});
  EXPECT_EQ(entry.sets(0).ctls(1).cgns_prefix(), 2u);
  EXPECT_FALSE(entry.sets(0).ctls(0).has_cgns_prefix());
  EXPECT_THAT(paths(entry.controllers(0)), ElementsAre("/c", "/c/empty", "/c/sub"));
  const TaskMembership outside{10, {{"memory", "/other"}}, {{"memory", "/c"}}};
  EXPECT_FALSE(dump(hierarchies_, {}, {&outside, 1}));
}

TEST_F(CgroupDump, FrozenStateBeforeTheEngineFroze) {
  tree_.file("unified/c/cgroup.freeze", "1\n");
  EXPECT_EQ(value(run({{10, {{"", "/c"}}}}).controllers(1).dirs(0), "cgroup.freeze"), "1");
  DumpOptions options;
  options.frozen = false;
  EXPECT_EQ(value(run({{10, {{"", "/c"}}}}, options).controllers(1).dirs(0), "cgroup.freeze"), "0");
}

TEST_F(CgroupDump, ThreadedCgroupIsRefusedByName) {
  tree_.file("unified/c/cgroup.type", "threaded\n");
  hierarchies_ = must(Hierarchies::open_below(tree_.root(), {v2()}));
  const TaskMembership task{10, {{"", "/c"}}, {}};
  const auto result = dump(hierarchies_, {}, {&task, 1});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::kUnsupported);
  EXPECT_NE(result.error().line().find(":/c"), std::string::npos);
}

TEST_F(CgroupDump, OnlyChosenControllers) {
  DumpOptions options;
  options.only_controllers = {"pids"};
  const auto entry = run({{10, {{"memory", "/c"}, {"", "/c"}}}}, options);
  EXPECT_EQ(entry.controllers(0).dirs_size(), 0);
  EXPECT_EQ(entry.controllers(1).dirs_size(), 1);
  EXPECT_EQ(entry.sets(0).ctls_size(), 2);
}

TEST_F(CgroupDump, DirectoryThatIsGone) {
  const auto entry = run({{10, {{"memory", "/removed"}}}});
  EXPECT_EQ(entry.controllers(0).dirs_size(), 0);
  EXPECT_EQ(entry.sets(0).ctls(0).path(), "/removed");
}

}  // namespace
}  // namespace stasis::cgroups
