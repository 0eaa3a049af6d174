// SPDX-License-Identifier: Apache-2.0
// Descriptions that mean harm: each is an error with a code, and no more.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>

#include "integration/config/text.h"
#include "integration/config/yaml.h"
#include "integration/oci/cgroups_path.h"
#include "integration/oci/spec.h"

namespace stasis::integration::oci {
namespace {

std::string error_of(std::string_view text) {
  auto spec = parse_spec(text, "config.json");
  if (spec) return "parsed";
  EXPECT_EQ(spec.error().code(), Code::kBadDescription);
  return spec.error().message();
}

TEST(HostileSpec, IsNoJson) {
  for (std::string_view text : {"", "{",
                                "\x7f"
                                "ELF",
                                "<xml/>", "{]", "{\"a\":}", "nul", "{}x"})
    EXPECT_NE(error_of(text), "parsed") << text;
}

TEST(HostileSpec, IsTooLargeToBeRead) {
  std::string name = testing::TempDir() + "hostile_XXXXXX";
  const int fd = ::mkstemp(name.data());
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::ftruncate(fd, 100 << 20), 0);
  ::close(fd);
  auto spec = read_spec(name);
  ::unlink(name.c_str());
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().code(), Code::kBadDescription);
  EXPECT_NE(spec.error().message().find("larger than 16 MiB"), std::string::npos);
  EXPECT_EQ(read_spec("/dev/zero").error().code(), Code::kBadDescription);
}

TEST(HostileSpec, IsNestedTenThousandDeep) {
  const std::string deep = std::string(10000, '[') + std::string(10000, ']');
  EXPECT_NE(error_of(deep).find("nested deeper"), std::string::npos);
  EXPECT_NE(error_of("{\"mounts\":" + deep + "}").find("nested deeper"), std::string::npos);
}

TEST(HostileSpec, SaysSomethingTwice) {
  EXPECT_NE(error_of(R"({"root":{"path":"a","path":"b"}})").find("occurs twice"), std::string::npos);
}

TEST(HostileSpec, IsNotUtf8) {
  EXPECT_NE(error_of("{\"hostname\":\"\xc3\x28\"}").find("UTF-8"), std::string::npos);
  EXPECT_NE(error_of("{\"hostname\":\"\xed\xa0\x80\"}").find("UTF-8"), std::string::npos);
}

TEST(HostileSpec, HasWrongTypesAnywhere) {
  const std::pair<const char*, const char*> kWrong[] = {
      {R"({"root":[]})", "$.root"},
      {R"({"root":{"readonly":1}})", "$.root.readonly"},
      {R"({"linux":{"resources":{"memory":{"limit":"1G"}}}})", "$.linux.resources.memory.limit"},
      {R"({"linux":{"resources":{"memory":{"limit":1.5}}}})", "$.linux.resources.memory.limit"},
      {R"({"linux":{"resources":{"cpu":{"shares":-1}}}})", "$.linux.resources.cpu.shares"},
      {R"({"linux":{"resources":{"pids":{"limit":[]}}}})", "$.linux.resources.pids.limit"},
      {R"({"linux":{"resources":{"devices":[{"allow":true,"type":"z"}]}}})", "$.linux.resources.devices[0].type"},
      {R"({"linux":{"resources":{"devices":[{}]}}})", "$.linux.resources.devices[0].allow"},
      {R"({"linux":{"resources":{"unified":{"memory.max":1}}}})", "$.linux.resources.unified.memory.max"},
      {R"({"linux":{"resources":{"rdma":{"m":{"hcaHandles":"x"}}}}})", "$.linux.resources.rdma.m.hcaHandles"},
      {R"({"linux":{"seccomp":{}}})", "$.linux.seccomp.defaultAction"},
      {R"({"linux":{"seccomp":{"defaultAction":"A","syscalls":[{"names":[],"action":"B"}]}}})",
       "$.linux.seccomp.syscalls[0].names"},
      {R"({"linux":{"seccomp":{"defaultAction":"A","syscalls":[{"names":["x"],"action":"B","args":[{"index":6}]}]}}})",
       "$.linux.seccomp.syscalls[0].args[0].index"},
      {R"({"linux":{"uidMappings":[{"containerID":-1}]}})", "$.linux.uidMappings[0].containerID"},
      {R"({"linux":{"sysctl":{"a":{}}}})", "$.linux.sysctl.a"},
      {R"({"hooks":{"prestart":[{"path":"true"}]}})", "$.hooks.prestart[0].path"},
      {R"({"hooks":[]})", "$.hooks"},
      {R"({"process":{"oomScoreAdj":"x"}})", "$.process.oomScoreAdj"},
  };
  for (const auto& [text, where] : kWrong) EXPECT_NE(error_of(text).find(where), std::string::npos) << error_of(text);
}

TEST(HostileSpec, CompleteResourcesAreRead) {
  auto spec = parse_spec(R"({"root":{"path":"r"},"linux":{"resources":{"memory":{"limit":-1,"swappiness":60},
"cpu":{"quota":1000,"cpus":"0-1"},"pids":{"limit":32},"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5}]},
"hugepageLimits":[{"pageSize":"2MB","limit":4}],"network":{"classID":7,"priorities":[{"name":"lo","priority":3}]},
"unified":{"memory.high":"1G"}},"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]},
"timeOffsets":{"boottime":{"secs":5,"nanosecs":6}},"sysctl":{"net.ipv4.ip_forward":"1"}}})",
                         "config.json");
  ASSERT_TRUE(spec) << spec.error().message();
  EXPECT_EQ(spec->resources->memory.limit, -1);
  EXPECT_EQ(spec->resources->pids, 32);
  EXPECT_EQ(spec->resources->io_throttle.at("throttleReadBpsDevice")[0].value, 5u);
  EXPECT_EQ(spec->resources->huge_pages.at("2MB"), 4u);
  EXPECT_EQ(spec->resources->unified.at("memory.high"), "1G");
  EXPECT_EQ(spec->seccomp->rules[0].arguments[0].op, "SCMP_CMP_EQ");
  EXPECT_EQ(spec->time_offsets.at("boottime").first, 5);
  EXPECT_EQ(spec->sysctls.at("net.ipv4.ip_forward"), "1");
}

TEST(HostileYaml, AliasesDoNotMultiply) {
  std::string bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n";
  for (char name = 'b'; name < 'k'; ++name) {
    const char last = static_cast<char>(name - 1);
    bomb += cat(name, ": &", name, " [*", last, ", *", last, ", *", last, ", *", last, "]\n");
  }
  auto node = config::parse_yaml(bomb, "stasis.yaml");
  ASSERT_FALSE(node);
  EXPECT_EQ(node.error().code(), Code::kBadDescription);
}

TEST(CgroupsPath, BothStyles) {
  const auto path = [](std::string_view text, std::string_view id = "web") {
    auto out = cgroup_directory(text, id);
    return out ? *out : "error";
  };
  EXPECT_EQ(path(""), "/web");
  EXPECT_EQ(path("/a//b/"), "/a/b");
  EXPECT_EQ(path("a/b"), "/a/b");
  EXPECT_EQ(path("system.slice:runc:x"), "/system.slice/runc-x.scope");
  EXPECT_EQ(path("a-b-c.slice:crun:x"), "/a.slice/a-b.slice/a-b-c.slice/crun-x.scope");
  EXPECT_EQ(path("::x"), "/system.slice/x.scope");
  EXPECT_EQ(path("-.slice:p:"), "/p-web.scope");
  EXPECT_EQ(path("a.slice:p:x.slice"), "/a.slice/x.slice");
  EXPECT_EQ(path("/a/../../b"), "error");
  EXPECT_EQ(path("a--b.slice:p:x"), "error");
  EXPECT_EQ(path("user:p:x"), "error");
  EXPECT_EQ(path("a.slice:p:", ""), "error");
}

}  // namespace
}  // namespace stasis::integration::oci
