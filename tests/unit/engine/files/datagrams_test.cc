// SPDX-License-Identifier: Apache-2.0
#include "engine/files/datagrams.h"

#include <gtest/gtest.h>

#include <functional>

namespace stasis::files {
namespace {

const std::string kV4(4, '\1'), kV6(16, '\2');

pb::socket_extra good() {
  pb::socket_extra extra;
  extra.set_file_id(7);
  auto& datagram = *extra.add_datagrams();
  datagram.set_source(kV6), datagram.set_port(53), datagram.set_device("eth0");
  auto& group = *extra.add_groups();
  group.set_address(kV4), group.set_device("eth0");
  group.add_sources(kV4);
  extra.set_device("lo");
  extra.add_group_devices("lo");
  return extra;
}

TEST(SocketExtra, WhatADumpWritesIsTaken) { EXPECT_TRUE(check_socket_extra(good(), 1).has_value()); }

TEST(SocketExtra, EachDatagramHasItsBytes) {
  EXPECT_FALSE(check_socket_extra(good(), 0).has_value());
  EXPECT_FALSE(check_socket_extra(good(), 2).has_value());
}

TEST(SocketExtra, AbsurdValuesAreRefused) {
  const std::function<void(pb::socket_extra&)> kBad[] = {
      [](auto& e) { e.mutable_datagrams(0)->set_source("abc"); },
      [](auto& e) { e.mutable_datagrams(0)->set_port(65536); },
      [](auto& e) { e.mutable_datagrams(0)->set_ttl(256); },
      [](auto& e) { e.mutable_datagrams(0)->set_tos(256); },
      [](auto& e) { e.mutable_datagrams(0)->set_device(std::string(16, 'x')); },
      [](auto& e) { e.mutable_groups(0)->set_address(""); },
      [](auto& e) { e.mutable_groups(0)->set_device(""); },
      [](auto& e) { e.mutable_groups(0)->set_device(std::string("a\0b", 3)); },
      [](auto& e) { e.mutable_groups(0)->set_sources(0, kV6); },
      [](auto& e) {
        for (int i = 0; i < 4096; ++i) e.mutable_groups(0)->add_sources(kV4);
      },
      [](auto& e) { e.set_device(std::string(40, 'x')); },
      [](auto& e) { e.set_group_devices(0, std::string(16, 'x')); },
  };
  for (const auto& spoil : kBad) {
    auto extra = good();
    spoil(extra);
    const auto result = check_socket_extra(extra, 1);
    ASSERT_FALSE(result.has_value()) << extra.ShortDebugString();
    EXPECT_EQ(result.error().code(), Code::kImageCorrupt);
  }
}

}  // namespace
}  // namespace stasis::files
