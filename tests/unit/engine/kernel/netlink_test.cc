// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/netlink.h"

#include <gtest/gtest.h>
#include <linux/rtnetlink.h>

namespace stasis::kernel {
namespace {

TEST(Netlink, MessageRoundTrip) {
  rtmsg head{};
  head.rtm_family = 2;
  NetlinkMessage message(RTM_NEWROUTE, NLM_F_REQUEST, head);
  message.attr_name(7, "abc");
  const size_t nested = message.begin(8);
  message.attr_u32(1, 0xdeadbeef);
  message.end(nested);
  const std::string raw = message.bytes(5);
  const auto parsed = parse_message<rtmsg>(raw);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->header.nlmsg_seq, 5u);
  EXPECT_EQ(parsed->head.rtm_family, 2);
  EXPECT_EQ(attribute_name(parsed->attributes, 7), "abc");
  const auto inner = parse_attributes(parsed->attributes.at(8));
  ASSERT_TRUE(inner);
  EXPECT_EQ(attribute<uint32_t>(*inner, 1), 0xdeadbeef);
  EXPECT_EQ(attribute<uint16_t>(*inner, 1), std::nullopt);
  EXPECT_EQ(attribute<uint32_t>(*inner, 2), std::nullopt);
}

TEST(Netlink, EveryCutIsNoticedOrWhole) {
  NetlinkMessage message(RTM_NEWROUTE, 0, rtmsg{});
  message.attr_u32(1, 2);
  const std::string raw = message.bytes(1);
  for (size_t n = 0; n < raw.size(); ++n) {
    EXPECT_FALSE(parse_message<rtmsg>(raw.substr(0, n))) << n;
    if (n > 0) {
      EXPECT_FALSE(split_messages(raw.substr(0, n))) << n;
    }
  }
  const auto two = split_messages(raw + raw);
  ASSERT_TRUE(two);
  EXPECT_EQ(two->size(), 2u);
}

TEST(Netlink, BadAttributeLengths) {
  for (const uint16_t length : {uint16_t{0}, uint16_t{3}, uint16_t{9}, uint16_t{0xffff}}) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, sizeof(length));
    EXPECT_FALSE(parse_attributes(bytes)) << length;
  }
}

}  // namespace
}  // namespace stasis::kernel
