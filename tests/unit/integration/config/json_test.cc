// SPDX-License-Identifier: Apache-2.0
#include "integration/config/json.h"

#include <gtest/gtest.h>

namespace stasis::integration::config {
namespace {

std::string error_of(std::string_view text) {
  auto node = parse_json(text, "f.json");
  if (node) return "parsed";
  EXPECT_EQ(node.error().code(), Code::kBadDescription);
  return node.error().message();
}

TEST(Json, ReadsEveryKindOfValue) {
  auto node = parse_json(
      R"({"a": [1, -2, 18446744073709551615, 1.5e3], "b": {"c": null, "d": true, "e": "x\n\u00e9\ud83d\ude00"}})", "f");
  ASSERT_TRUE(node);
  const Cursor at(&*node, "f");
  const auto list = *at.get("a")->list();
  EXPECT_EQ(*list[0].integer(), 1);
  EXPECT_EQ(*list[1].integer(), -2);
  EXPECT_EQ(*list[2].unsigned_integer(), 18446744073709551615u);
  EXPECT_EQ(list[3].node()->kind(), Node::Kind::kReal);
  const Cursor b = *at.get("b");
  EXPECT_FALSE(b.get("c")->present());
  EXPECT_TRUE(*b.get("d")->boolean());
  EXPECT_EQ(*b.get("e")->string(), "x\n\xc3\xa9\xf0\x9f\x98\x80");
  EXPECT_EQ(b.get("e")->node()->place().line, 1);
}

TEST(Json, NamesTheLineAndColumn) {
  EXPECT_EQ(error_of("{\n  \"a\": 1,\n  oops\n}"), "f.json: expected a key in double quotes (line 3, column 3)");
}

TEST(Json, RefusesWhatJsonIsNot) {
  for (const char* text :
       {"",        "{",         "[1,]",  "{\"a\":1,}", "{'a':1}", "01",      "+1",        "1.",          "1e",
        ".5",      "nul",       "[1] 2", "\"a",        "\"\t\"",  "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\udc00\"",
        "// c\n1", "{\"a\" 1}", "-",     "[1 2]",      "NaN"})
    EXPECT_NE(error_of(text), "parsed") << text;
}

TEST(Json, RefusesDuplicateKeys) {
  EXPECT_NE(error_of(R"({"a":1,"a":2})").find("\"a\" occurs twice"), std::string::npos);
}

TEST(Json, RefusesDepth) {
  const std::string good = std::string(kMaxDepth, '[') + std::string(kMaxDepth, ']');
  EXPECT_EQ(error_of(good), "parsed");
  EXPECT_NE(error_of("[" + good + "]").find("nested deeper"), std::string::npos);
  EXPECT_NE(error_of(std::string(1 << 20, '[')).find("nested deeper"), std::string::npos);
}

TEST(Json, RefusesInvalidUtf8) {
  for (const char* bytes : {"\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\""})
    EXPECT_EQ(error_of(bytes), "f.json: not valid UTF-8");
}

TEST(Json, RefusesHugeText) { EXPECT_EQ(error_of(std::string(kMaxText + 1, ' ')), "f.json: larger than 16 MiB"); }

TEST(Cursor, SaysWhereAndWhat) {
  auto node = parse_json(R"({"p": {"args": ["a", 5]}})", "c.json");
  ASSERT_TRUE(node);
  const Cursor at(&*node, "c.json");
  auto args = at.get("p")->get("args")->strings();
  ASSERT_FALSE(args);
  EXPECT_EQ(args.error().message(), "c.json: $.p.args[1]: expected a string, found an integer (line 1, column 22)");
  EXPECT_EQ(at.get("p")->get("none")->string().error().message(), "c.json: $.p.none: missing; expected a string");
  EXPECT_FALSE(at.get("p")->get("args")->get("x"));
  EXPECT_FALSE(at.get("p")->list());
  EXPECT_EQ(*at.get("none")->get("deeper")->string_or("d"), "d");
}

TEST(Cursor, RefusesNulInStrings) {
  auto node = parse_json("\"/a\\u0000b\"", "f");
  ASSERT_TRUE(node);
  EXPECT_FALSE(Cursor(&*node, "f").string());
}

TEST(Cursor, ChecksRange) {
  auto node = parse_json("[-1, 18446744073709551615, 99999999999999999999, 1.5]", "f");
  ASSERT_TRUE(node);
  const auto list = *Cursor(&*node, "f").list();
  EXPECT_FALSE(list[0].unsigned_integer());
  EXPECT_FALSE(list[1].integer());
  EXPECT_FALSE(list[2].integer());
  EXPECT_FALSE(list[3].integer());
}

}  // namespace
}  // namespace stasis::integration::config
