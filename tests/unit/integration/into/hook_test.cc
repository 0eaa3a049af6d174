// SPDX-License-Identifier: Apache-2.0
#include "integration/into/hook.h"

#include <gtest/gtest.h>

#include "integration/config/json.h"
#include "integration/config/write_json.h"

namespace stasis::integration::into {
namespace {

config::Node node(std::string_view json) { return *config::parse_json(json, "config.json"); }
const Program kProgram{"ld.so", "stasis", {{"/usr/bin/stasis", "stasis"}}};
constexpr char kPlain[] = R"({"process":{"args":["sh"]},"root":{"path":"rootfs"},"mounts":[],"linux":{},
  "hooks":{"poststart":[{"path":"/bin/first"}]},"annotations":{"a":"b","io.stasis.restore":"/images"}})";

TEST(Hook, GivesTheDescriptionHooksAndKeepsTheOriginal) {
  const config::Node plain = node(kPlain);
  const auto hooked = hooked_config(plain, kProgram, "/usr/bin/stasis", 1, true);
  ASSERT_TRUE(hooked);
  const oci::Spec spec = *oci::parse_spec(config::write_json(*hooked), "config.json");
  ASSERT_EQ(spec.hooks.size(), 3u);
  for (const oci::Hook& hook : spec.hooks) {
    if (hook.path == "/bin/first") continue;
    EXPECT_EQ(hook.path, "/usr/bin/stasis");
    EXPECT_EQ(hook.args[1], "oci-restore");
    EXPECT_EQ(hook.args[2], hook.point == "poststart" ? "start" : "check");
    EXPECT_EQ(hook.args.size(), hook.point == "poststart" ? 4u : 3u);
  }
  EXPECT_NE(config::write_json(*hooked).find(R"("poststart":[{"path":"/bin/first"},{"path":"/usr/bin/stasis")"),
            std::string::npos);
  EXPECT_EQ(spec.process.args[0], "/dev/.stasis/ld.so");
  EXPECT_EQ(spec.root_path, "rootfs");
  EXPECT_EQ(config::write_json(*original_of(*hooked, "f")), config::write_json(plain));
  EXPECT_EQ(hooked_config(*hooked, kProgram, "/usr/bin/stasis", 1, true).error().code(), Code::kBadDescription);
}

TEST(Hook, WishesAreAbsolutePaths) {
  const auto wishes = [](const char* annotations) {
    return wishes_of(node(cat(R"({"annotations":)", annotations, "}")));
  };
  const auto all =
      wishes(R"({"io.stasis.restore":"/i","io.stasis.restore.work":"/w","io.stasis.restore.report":"/r"})");
  ASSERT_TRUE(all);
  EXPECT_EQ(all->images, "/i");
  EXPECT_EQ(all->work, "/w");
  EXPECT_EQ(all->report, "/r");
  for (const char* bad :
       {"{}", R"({"io.stasis.restore":""})", R"({"io.stasis.restore":"i"})", R"({"io.stasis.restore":"/i\u0000"})",
        R"({"io.stasis.restore":["/i"]})", R"({"io.stasis.restore":"/i","io.stasis.restore.report":"r"})", "[]"})
    EXPECT_EQ(wishes(bad).error().code(), Code::kBadDescription) << bad;
}

TEST(Hook, StateIsChecked) {
  const auto state = parse_state(R"({"ociVersion":"1.0","id":"x","pid":7,"bundle":"/b","status":"running"})");
  ASSERT_TRUE(state);
  EXPECT_EQ(state->id, "x");
  EXPECT_EQ(state->bundle, "/b");
  EXPECT_EQ(state->pid, 7);
  for (const char* bad : {"", "{}", R"({"id":"x","bundle":"/b"})", R"({"id":"../x","pid":7,"bundle":"/b"})",
                          R"({"id":"x","pid":0,"bundle":"/b"})", R"({"id":"x","pid":99999999,"bundle":"/b"})",
                          R"({"id":"x","pid":7,"bundle":"b"})"})
    EXPECT_FALSE(parse_state(bad)) << bad;
}

}  // namespace
}  // namespace stasis::integration::into
