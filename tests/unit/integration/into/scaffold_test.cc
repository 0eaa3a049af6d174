// SPDX-License-Identifier: Apache-2.0
#include "integration/into/scaffold.h"

#include <gtest/gtest.h>
#include <sched.h>

#include "integration/config/json.h"
#include "integration/config/write_json.h"
#include "integration/into/runtime.h"

namespace stasis::integration::into {
namespace {

constexpr char kBundle[] = R"({"ociVersion":"1.0.2","process":{"args":["sh"],"noNewPrivileges":true,"oomScoreAdj":5},
  "root":{"path":"rootfs"},"unknown":{"kept":1},"hooks":{"prestart":[{"path":"/bin/true"}]},
  "mounts":[{"destination":"/dev","type":"tmpfs","source":"tmpfs"},
            {"destination":"/d","type":"bind","source":"data","options":["bind"]}],
  "linux":{"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"network","path":"/run/netns/x"}],
           "seccomp":{"defaultAction":"SCMP_ACT_ALLOW"},"cgroupsPath":"/c","resources":{"pids":{"limit":9}}}})";

config::Node bundle() { return *config::parse_json(kBundle, "config.json"); }
const Program kProgram{"ld.so", "stasis", {{"/usr/bin/stasis", "stasis"}, {"/lib/ld.so", "ld.so"}}};
oci::Spec spec_of(const config::Node& node) { return *oci::parse_spec(config::write_json(node), "config.json"); }

TEST(Scaffold, TheWaitingProcessHasWhatTheRestoreNeeds) {
  const config::Node node = waiting_config(bundle(), "/b", kProgram, uint64_t{1} << 21 | 1);
  const oci::Spec spec = spec_of(node);
  EXPECT_EQ(spec.process.args[0], "/dev/.stasis/ld.so");
  EXPECT_EQ(spec.process.args.back(), "/dev/.stasis/socket");
  EXPECT_FALSE(spec.process.no_new_privileges);
  EXPECT_EQ(spec.process.capabilities.effective, (std::vector<std::string>{"CAP_CHOWN", "CAP_SYS_ADMIN"}));
  EXPECT_TRUE(spec.process.rlimits.empty());
  EXPECT_FALSE(spec.seccomp.has_value());
  EXPECT_EQ(spec.root_path, "/b/rootfs");
  ASSERT_EQ(spec.mounts.size(), 5u);
  EXPECT_EQ(spec.mounts[0].source, "tmpfs");
  EXPECT_EQ(spec.mounts[1].source, "/b/data");
  EXPECT_EQ(spec.mounts[2].destination, "/dev/.stasis");
  EXPECT_EQ(spec.mounts[2].type, "tmpfs");
  EXPECT_EQ(spec.mounts[3].source, "/usr/bin/stasis");
  EXPECT_EQ(spec.mounts[3].destination, "/dev/.stasis/stasis");
  ASSERT_EQ(spec.hooks.size(), 1u);
  EXPECT_EQ(spec.hooks[0].point, "prestart");
  EXPECT_NE(config::write_json(node).find(R"("unknown":{"kept":1})"), std::string::npos);
  EXPECT_NE(config::write_json(node).find(R"("oomScoreAdj":5)"), std::string::npos);
}

TEST(Scaffold, WithoutABundlePathsStayRelative) {
  const oci::Spec spec = spec_of(waiting_config(bundle(), "", kProgram, 1));
  EXPECT_EQ(spec.root_path, "rootfs");
  EXPECT_EQ(spec.mounts[1].source, "data");
}

TEST(Scaffold, TheFilterIsTranslatedAside) {
  const config::Node waiting = waiting_config(bundle(), "/b", kProgram, 1);
  const oci::Spec spec = spec_of(filter_config(bundle(), waiting, "/aside"));
  EXPECT_TRUE(spec.seccomp.has_value());
  EXPECT_FALSE(spec.resources.has_value());
  EXPECT_EQ(spec.cgroups_path, "/aside");
  EXPECT_TRUE(spec.hooks.empty());
}

TEST(Scaffold, NamespacesWithAPathAreNotTouched) {
  EXPECT_EQ(joined_namespaces(spec_of(bundle())), static_cast<unsigned long>(CLONE_NEWNET));
}

Code refusal(std::string_view key, config::Node value) {
  const config::Node node = config::with(bundle(), key, std::move(value));
  const auto checked = check_description(node, spec_of(node));
  return checked ? Code::kInternal : checked.error().code();
}

TEST(Scaffold, RefusesWhatWouldBeLostOrStay) {
  ASSERT_TRUE(check_description(bundle(), spec_of(bundle())));
  const auto json = [](const char* text) { return *config::parse_json(text, "f"); };
  EXPECT_EQ(refusal("process", json(R"({"terminal":true})")), Code::kUnsupportedFile);
  EXPECT_EQ(refusal("process", json(R"({"apparmorProfile":"x"})")), Code::kUnsupported);
  EXPECT_EQ(refusal("process", json(R"({"selinuxLabel":"x"})")), Code::kUnsupported);
  EXPECT_EQ(refusal("mounts", json("[]")), Code::kUnsupportedMount);
  EXPECT_EQ(refusal("mounts", json(R"([{"destination":"/dev","type":"bind","source":"/dev"}])")),
            Code::kUnsupportedMount);
  EXPECT_EQ(refusal("linux", json(R"({"namespaces":[{"type":"mount"}]})")), Code::kUnsupportedNamespace);
  EXPECT_EQ(refusal("linux", json(R"({"namespaces":[{"type":"mount"},{"type":"pid","path":"/p"}]})")),
            Code::kUnsupportedNamespace);
  EXPECT_EQ(refusal("linux", json(R"({"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"user"}]})")),
            Code::kUnsupportedNamespace);
}

TEST(Scaffold, OwnProgramHasALoader) {
  const auto program = own_program();
  ASSERT_TRUE(program);
  EXPECT_TRUE(program->loader.starts_with("ld"));
  EXPECT_GT(program->parts.size(), 2u);
}

TEST(Runtimes, AreATable) {
  ASSERT_TRUE(find_runtime("crun"));
  EXPECT_EQ(runtime_root(**find_runtime("crun"), "/run/user/0"), "/run/user/0/crun");
  EXPECT_EQ(runtime_root(**find_runtime("runc"), "/run/user/0"), "/run/runc");
  EXPECT_EQ(find_runtime("podman").error().code(), Code::kUnsupported);
  EXPECT_EQ(find_runtime("youki").error().code(), Code::kUnsupported);
}

}  // namespace
}  // namespace stasis::integration::into
