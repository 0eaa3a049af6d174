// SPDX-License-Identifier: Apache-2.0
#include "integration/config/yaml.h"

#include <gtest/gtest.h>

namespace stasis::integration::config {
namespace {

std::string error_of(std::string_view text) {
  auto node = parse_yaml(text, "f.yaml");
  if (node) return "parsed";
  EXPECT_EQ(node.error().code(), Code::kBadDescription);
  return node.error().message();
}

TEST(Yaml, ReadsScalarsListsAndMaps) {
  auto node = parse_yaml("# c\na: 1\nb: [x, \"2\", 'y z']\nc:\n  d: true\n  e: ~\n  f: \"true\"\n", "f");
  ASSERT_TRUE(node) << node.error().message();
  const Cursor at(&*node, "f");
  EXPECT_EQ(*at.get("a")->integer(), 1);
  EXPECT_EQ(*at.get("a")->string(), "1");  // a plain scalar is what the reader wants it to be
  EXPECT_EQ(*at.get("b")->strings(), (std::vector<std::string>{"x", "2", "y z"}));
  EXPECT_FALSE(at.get("b")->list()->at(1).integer());  // quoted: a string
  EXPECT_TRUE(*at.get("c")->get("d")->boolean());
  EXPECT_FALSE(at.get("c")->get("e")->present());
  EXPECT_FALSE(at.get("c")->get("f")->boolean());
  EXPECT_EQ(at.get("c")->get("d")->node()->place().line, 5);
}

TEST(Yaml, RefusesAliasesAnchorsTagsAndDuplicates) {
  EXPECT_NE(error_of("a: &x 1\nb: *x\n").find("an anchor"), std::string::npos);
  EXPECT_NE(error_of("a: *x\n"), "parsed");
  EXPECT_NE(error_of("a: !!binary aGk=\n").find("a tag"), std::string::npos);
  EXPECT_NE(error_of("a: 1\nb: 2\na: 3\n").find("\"a\" occurs twice (line 3, column 1)"), std::string::npos);
  EXPECT_NE(error_of("? [a]\n: b\n").find("not a scalar"), std::string::npos);
}

TEST(Yaml, RefusesBrokenText) {
  for (const char* text : {"", "# only a comment\n", "a: [1\n", "a: b: c\n", "\tx: 1\n", "a\n---\nb\n", "{"})
    EXPECT_NE(error_of(text), "parsed") << text;
  EXPECT_EQ(error_of("a: \xff"), "f.yaml: not valid UTF-8");
}

TEST(Yaml, RefusesDepth) {
  EXPECT_EQ(error_of(std::string(kMaxDepth, '[') + std::string(kMaxDepth, ']')), "parsed");
  EXPECT_NE(error_of(std::string(kMaxDepth + 1, '[') + std::string(kMaxDepth + 1, ']')).find("nested deeper"),
            std::string::npos);
  EXPECT_NE(error_of(std::string(100000, '[')), "parsed");
}

TEST(Yaml, ScalarsReadBackAsTheyWere) {
  for (std::string text : {"plain",    "/a/b-c.d", "",      "true",   "no",  "~",  "null",        "1",
                           "1.5",      "0x10",     "a: b",  "a #b",   "- x", "*x", "&x",          "!x",
                           "%x",       "@x",       "`x",    "\"",     "'",   "\\", "line\nbreak", "tab\t",
                           "\x01",     "\xc3\xa9", " lead", "trail ", "{",   "[",  "a,b",         "name=systemd",
                           "pipe:[1]", "-",        "?",     "|",      ">",   "y",  "On",          "<<"}) {
    auto node = parse_yaml(cat("k: ", yaml_scalar(text), "\nl: [", yaml_scalar(text), "]\n"), "f");
    ASSERT_TRUE(node) << text << ": " << node.error().message();
    EXPECT_EQ(node->find("k")->text(), text);
    EXPECT_EQ(node->find("l")->items().at(0).text(), text);
    EXPECT_EQ(*Cursor(&*node, "f").get("k")->string(), text);
  }
}

}  // namespace
}  // namespace stasis::integration::config
