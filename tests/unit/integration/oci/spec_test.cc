// SPDX-License-Identifier: Apache-2.0
#include "integration/oci/spec.h"

#include <gtest/gtest.h>

namespace stasis::integration::oci {
namespace {

// Shortened from `runc spec` of runc 1.1.5.
constexpr std::string_view kConfig = R"({
  "ociVersion": "1.0.2-dev",
  "process": {
    "terminal": true,
    "user": {"uid": 1000, "gid": 100, "additionalGids": [5, 6]},
    "args": ["sh", "-c", "true"],
    "env": ["PATH=/bin"],
    "cwd": "/",
    "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
    "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 18446744073709551615, "soft": 1024}],
    "noNewPrivileges": true
  },
  "root": {"path": "rootfs", "readonly": true},
  "hostname": "box",
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/data", "source": "/srv/data", "options": ["rbind", "ro"]}
  ],
  "hooks": {"prestart": [{"path": "/bin/true"}], "poststop": []},
  "annotations": {"org.example": "1"},
  "linux": {
    "resources": {"devices": [{"allow": false, "access": "rwm"}]},
    "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/x"}],
    "cgroupsPath": "/c",
    "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
    "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
    "maskedPaths": ["/proc/kcore"],
    "readonlyPaths": ["/proc/bus"],
    "futureKey": 1
  }
})";

std::string error_of(std::string_view text) {
  auto spec = parse_spec(text, "config.json");
  if (spec) return "parsed";
  EXPECT_EQ(spec.error().code(), Code::kBadDescription);
  return spec.error().message();
}

TEST(Spec, ReadsWhatPlanningNeeds) {
  auto spec = parse_spec(kConfig, "config.json");
  ASSERT_TRUE(spec) << spec.error().message();
  EXPECT_EQ(spec->version, "1.0.2-dev");
  EXPECT_TRUE(spec->process.terminal);
  EXPECT_EQ(spec->process.args, (std::vector<std::string>{"sh", "-c", "true"}));
  EXPECT_EQ(spec->process.uid, 1000u);
  EXPECT_EQ(spec->process.groups, (std::vector<uint32_t>{5, 6}));
  EXPECT_EQ(spec->process.capabilities.bounding, (std::vector<std::string>{"CAP_KILL"}));
  EXPECT_TRUE(spec->process.capabilities.ambient.empty());
  ASSERT_EQ(spec->process.rlimits.size(), 1u);
  EXPECT_EQ(spec->process.rlimits[0].hard, ~0ull);
  EXPECT_TRUE(spec->process.no_new_privileges);
  EXPECT_EQ(spec->root_path, "rootfs");
  EXPECT_TRUE(spec->root_readonly);
  ASSERT_EQ(spec->mounts.size(), 2u);
  EXPECT_FALSE(spec->mounts[0].is_bind());
  EXPECT_TRUE(spec->mounts[1].is_bind());
  ASSERT_NE(spec->find_namespace("network"), nullptr);
  EXPECT_EQ(spec->find_namespace("network")->path, "/run/netns/x");
  EXPECT_EQ(spec->find_namespace("user"), nullptr);
  EXPECT_EQ(spec->cgroups_path, "/c");
  EXPECT_TRUE(spec->resources);
  EXPECT_TRUE(spec->seccomp);
  ASSERT_EQ(spec->hooks.size(), 1u);
  EXPECT_EQ(spec->hooks[0].point, "prestart");
  EXPECT_EQ(spec->annotations.at("org.example"), "1");
  ASSERT_EQ(spec->devices.size(), 1u);
  EXPECT_EQ(spec->devices[0].minor, 229);
}

TEST(Spec, RefusesWrongTypesByPath) {
  EXPECT_EQ(error_of("[]"), "config.json: $: expected a map, found a list (line 1, column 1)");
  EXPECT_EQ(error_of("null").substr(0, 15), "config.json: $:");
  EXPECT_NE(error_of(R"({"process": {"args": "sh"}})").find("$.process.args: expected a list, found a string"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"process": {"terminal": "yes"}})").find("$.process.terminal: expected true or false"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"mounts": [{"type": "proc"}]})").find("$.mounts[0].destination: missing"), std::string::npos);
  EXPECT_NE(error_of(R"({"mounts": [{"destination": "proc"}]})").find("is not absolute"), std::string::npos);
  EXPECT_NE(error_of(R"({"linux": {"namespaces": [{"type": "net"}]}})").find("unknown namespace type \"net\""),
            std::string::npos);
  EXPECT_NE(error_of(R"({"linux": {"namespaces": [{"type": "pid"}, {"type": "pid"}]}})").find("occurs twice"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"linux": {"namespaces": [{"type": "pid", "path": "x"}]}})").find("not absolute"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"process": {"user": {"uid": 4294967296}}})").find("does not fit 32 bits"), std::string::npos);
  EXPECT_NE(error_of(R"({"process": {"user": {"uid": -1}}})").find("negative"), std::string::npos);
  EXPECT_NE(error_of(R"({"hostname": "a\u0000b"})").find("NUL"), std::string::npos);
  EXPECT_NE(error_of(R"({"annotations": {"a": 1}})").find("$.annotations.a"), std::string::npos);
  EXPECT_NE(error_of(R"({"linux": {"seccomp": true}})").find("$.linux.seccomp"), std::string::npos);
}

TEST(Spec, TakesNullForAbsent) {
  auto spec = parse_spec(R"({"process": null, "mounts": null, "linux": {"namespaces": null}})", "config.json");
  ASSERT_TRUE(spec) << spec.error().message();
  EXPECT_TRUE(spec->mounts.empty());
}

TEST(Spec, MissingFileIsNotFound) {
  auto spec = read_spec("/nonexistent/config.json");
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().code(), Code::kNotFound);
}

}  // namespace
}  // namespace stasis::integration::oci
