// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/responses.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace stasis::rpc {
namespace {

TEST(Responses, VersionBytes) {
  // type 10, success, version{4, 2}: what go-criu and libcriu turn into 40200.
  EXPECT_EQ(version_response().SerializeAsString(), std::string("\x08\x0a\x10\x01\x52\x04\x08\x04\x10\x02", 10));
}

TEST(Responses, FailureCarriesCodeAndObject) {
  const auto response = failure(pb::DUMP, Error(Code::kUnsupportedFile, "an eventfd").about("pid 5 fd 3"));
  EXPECT_EQ(response.type(), pb::DUMP);
  EXPECT_FALSE(response.success());
  EXPECT_EQ(response.cr_errno(), ENOTSUP);
  EXPECT_EQ(response.cr_errmsg(), "STASIS-E-UNSUPPORTED-FILE: an eventfd [pid 5 fd 3]");
}

TEST(Responses, ErrnoOfTheSystemCallWins) {
  EXPECT_EQ(response_errno(Error(Code::kSystem, "x").with_errno(EMFILE)), EMFILE);
  EXPECT_EQ(response_errno(Error(Code::kPidTaken, "x")), EEXIST);
  EXPECT_EQ(response_errno(Error(Code::kNoContainer, "x")), ESRCH);
  EXPECT_EQ(response_errno(Error(Code::kBadOption, "x")), EBADRQC);
  for (const auto& info : all_codes()) EXPECT_GT(response_errno(Error(info.code, "x")), 0) << info.id;
}

TEST(Responses, TextIsOneShortValidLine) {
  const std::string text = response_text(Error(Code::kSystem, "a\nb\xff\xc3\xa9\x1b" + std::string(5000, 'y')));
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_EQ(text.find('\xff'), std::string::npos);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_NE(text.find("a b?\xc3\xa9 y"), std::string::npos);
  EXPECT_LE(text.size(), kMaxMessageText);
  // A multi-byte character is not cut in half.
  std::string wide(kMaxMessageText, 'a');
  for (size_t i = 0; i < 40; ++i) wide[wide.size() - 40 + i] = (i % 2) ? '\xa9' : '\xc3';
  const std::string cut = response_text(Error(Code::kSystem, wide));
  EXPECT_EQ(static_cast<unsigned char>(cut.back()) & 0x80, 0x80);
  EXPECT_EQ(cut.back(), '\xa9');
}

}  // namespace
}  // namespace stasis::rpc
