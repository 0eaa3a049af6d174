// SPDX-License-Identifier: Apache-2.0
#include "integration/config/write_json.h"

#include <gtest/gtest.h>

#include "integration/config/json.h"

namespace stasis::integration::config {
namespace {

TEST(WriteJson, WritesWhatWasRead) {
  const std::string text = R"({"a":[1,-2,18446744073709551615,1.5e3,[],{}],"b":{"c":null,"d":true,"e":"x\"\n"}})";
  const auto node = parse_json(text, "f");
  ASSERT_TRUE(node);
  EXPECT_EQ(write_json(*node), text);
}

TEST(WriteJson, ChangedCopiesKeepTheRest) {
  const auto node = parse_json(R"({"a":1,"b":2,"c":[3]})", "f");
  ASSERT_TRUE(node);
  EXPECT_EQ(write_json(with(*node, "b", text("x"))), R"({"a":1,"b":"x","c":[3]})");
  EXPECT_EQ(write_json(with(*node, "d", texts({"x", "y"}))), R"({"a":1,"b":2,"c":[3],"d":["x","y"]})");
  EXPECT_EQ(write_json(without(*node, "a")), R"({"b":2,"c":[3]})");
  EXPECT_EQ(write_json(appended(node->find("c"), {text("z")})), R"([3,"z"])");
  EXPECT_EQ(write_json(appended(nullptr, {})), "[]");
  EXPECT_EQ(write_json(*node), R"({"a":1,"b":2,"c":[3]})");
}

}  // namespace
}  // namespace stasis::integration::config
