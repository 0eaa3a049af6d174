// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/labels.h"

#include <gtest/gtest.h>

namespace stasis::tasks {
namespace {

TEST(Labels, TheModeIsNoPartOfTheName) {
  EXPECT_EQ(parse_label("unconfined\n"), "");
  EXPECT_EQ(parse_label("docker-default (enforce)\n"), "docker-default");
  EXPECT_EQ(parse_label("a b//&c (complain)"), "a b//&c");
  EXPECT_EQ(parse_label("lxc-x_</var/lib/lxc>//&:lxc-x_<-var-lib-lxc>:unconfined (enforce)\n"),
            "lxc-x_</var/lib/lxc>//&:lxc-x_<-var-lib-lxc>:unconfined");
  EXPECT_EQ(parse_label("x(1)\n"), "x(1)");
}

}  // namespace
}  // namespace stasis::tasks
