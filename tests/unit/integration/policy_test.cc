// SPDX-License-Identifier: Apache-2.0
#include "integration/policy.h"

#include <gtest/gtest.h>

namespace stasis::integration {
namespace {

constexpr std::string_view kText = R"(engine: /usr/sbin/criu
supervisor: [/usr/bin/supervise, --quiet]
mounts:
  - {container: /data, to: /srv/new}
  - {source: /srv/old, to: /mnt/moved}
  - {source: /srv/only, to: /mnt/web, name: "web-*"}
cgroups:
  - {name: "web-*", roots: [/web, "cpu:/fast"]}
  - {name: "*", mode: full}
)";

Policy policy(std::string_view text = kText) {
  auto out = parse_policy(text, "/etc/stasis/stasis.yaml");
  EXPECT_TRUE(out) << out.error().message();
  return out ? *out : Policy{};
}

Plan plan(const std::string& id) {
  Plan out;
  out.id = id;
  out.mounts = {{"/data", "/data", "/a", "", "config.json $.mounts[0]"},
                {"/b", "/b", "/srv/old/b", "", ""},
                {"/c", "/c", "/srv/older", "", ""},
                {"/d", "/d", "/srv/only", "", ""},
                {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory", "", "memory", ""}};
  return out;
}

TEST(Policy, RewritesMountsByContainerPathOrSource) {
  Plan one = plan("db");
  apply_policy(policy(), PlanFor::kRestore, one);
  EXPECT_EQ(one.mounts[0].source, "/srv/new");
  EXPECT_EQ(one.mounts[0].from, "config.json $.mounts[0]; stasis.yaml $.mounts[0]");
  EXPECT_EQ(one.mounts[1].source, "/mnt/moved/b");
  EXPECT_EQ(one.mounts[2].source, "/srv/older");
  EXPECT_EQ(one.mounts[3].source, "/srv/only");
  EXPECT_EQ(one.mounts[4].source, "");
  one = plan("web-1");
  apply_policy(policy(), PlanFor::kRestore, one);
  EXPECT_EQ(one.mounts[3].source, "/mnt/web");
}

TEST(Policy, TheFirstPatternDecidesAboutCgroups) {
  Plan one = plan("web-1");
  apply_policy(policy(), PlanFor::kRestore, one);
  ASSERT_EQ(one.cgroups.roots.size(), 2u);
  EXPECT_EQ(root_text(one.cgroups.roots[1]), "cpu:/fast");
  EXPECT_EQ(one.cgroups.mode, CgroupMode::kSoft);
  one = plan("db");
  apply_policy(policy(), PlanFor::kRestore, one);
  EXPECT_TRUE(one.cgroups.roots.empty());
  EXPECT_EQ(one.cgroups.mode, CgroupMode::kFull);
}

TEST(Policy, EngineAndSupervisorAreCarried) {
  Plan one = plan("db");
  apply_policy(policy(), PlanFor::kRestore, one);
  EXPECT_EQ(one.engine, "/usr/sbin/criu");
  EXPECT_EQ(one.supervisor, (std::vector<std::string>{"/usr/bin/supervise", "--quiet"}));
  one = plan("web-1");
  apply_policy(policy(), PlanFor::kDump, one);
  EXPECT_EQ(one.engine, "/usr/sbin/criu");
  EXPECT_EQ(one.mounts, plan("web-1").mounts);
  EXPECT_TRUE(one.cgroups.roots.empty());
  Plan other = plan("db");
  apply_policy(Policy{}, PlanFor::kRestore, other);
  EXPECT_EQ(other.mounts, plan("db").mounts);
  EXPECT_EQ(other.engine, "embedded");
}

TEST(Policy, RefusesWhatItDoesNotKnowWithItsLine) {
  for (const char* text :
       {"engines: x\n", "engine: criu\n", "supervisor: x\n", "mounts: [{container: /a}]\n", "mounts: [{to: /a}]\n",
        "mounts: [{container: /a, source: /b, to: /c}]\n", "mounts: [{container: a, to: /c}]\n",
        "mounts: [{source: /a/../b, to: /c}]\n", "mounts: [{source: /a, to: /c, too: 1}]\n",
        "cgroups: [{roots: [/a]}]\n", "cgroups: [{name: a, roots: [a/../..]}]\n", "cgroups: [{name: a, mode: loud}]\n",
        "cgroups: [{name: a, mode: ignore, roots: [/a]}]\n", "[]\n"}) {
    auto out = parse_policy(cat("# first\n", text), "stasis.yaml");
    ASSERT_FALSE(out) << text;
    EXPECT_EQ(out.error().code(), Code::kBadDescription) << text;
    EXPECT_NE(out.error().message().find("stasis.yaml: $"), std::string::npos) << out.error().message();
    EXPECT_TRUE(out.error().message().find("line 2") != std::string::npos ||
                out.error().message().find("missing") != std::string::npos)
        << out.error().message();
  }
}

TEST(Policy, OnlyANamedFileMustExist) { EXPECT_FALSE(read_policy("/nonexistent/stasis.yaml")); }

}  // namespace
}  // namespace stasis::integration
