// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/check_command.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace stasis::cli {
namespace {

std::vector<KernelFeature> features(bool required_present) {
  return {{"clone3_set_tid", "exact pids", true, required_present},
          {"mem_dirty_track", "dirty tracking", false, false},
          {"pidfd", "process descriptors", true, required_present}};
}

TEST(CheckCommand, AllMissingRequiredFeaturesAreNamed) {
  EXPECT_TRUE(check_required(features(true)));
  auto missing = check_required(features(false));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), Code::kKernelFeature);
  EXPECT_EQ(missing.error().object(), "clone3_set_tid");
  ASSERT_EQ(missing.error().also().size(), 1u);
  EXPECT_EQ(missing.error().also()[0].object(), "pidfd");
}

TEST(CheckCommand, TheEnginesWordGoesBeforeTheTable) {
  EXPECT_EQ(feature_state(features(true), "clone3_set_tid"), FeatureState::kSupported);
  EXPECT_EQ(feature_state(features(false), "clone3_set_tid"), FeatureState::kUnsupported);
  EXPECT_EQ(feature_state({}, "mnt_id"), FeatureState::kSupported);
  EXPECT_EQ(feature_state({}, "mem_dirty_track"), FeatureState::kUnsupported);
  EXPECT_EQ(feature_state({}, "uffd-noncoop"), FeatureState::kUnsupported);
  EXPECT_EQ(feature_state(features(true), "no_such"), FeatureState::kUnknown);
}

TEST(CheckCommand, EveryFeatureNameOfCriuIsKnown) {
  for (const auto* name : {"mnt_id",
                           "mem_dirty_track",
                           "aio_remap",
                           "timerfd",
                           "tun",
                           "tun_ns",
                           "userns",
                           "fdinfo_lock",
                           "seccomp_suspend",
                           "seccomp_filters",
                           "loginuid",
                           "cgroupns",
                           "autofs",
                           "tcp_half_closed",
                           "compat_cr",
                           "uffd",
                           "uffd-noncoop",
                           "can_map_vdso",
                           "sk_ns",
                           "sk_unix_file",
                           "net_diag_raw",
                           "nsid",
                           "link_nsid",
                           "kcmp_epoll",
                           "timens",
                           "external_net_ns",
                           "clone3_set_tid",
                           "newifindex",
                           "nftables",
                           "has_ipt_legacy",
                           "pidfd_store",
                           "ns_pid",
                           "apparmor_stacking",
                           "network_lock_nftables",
                           "sockopt_buf_lock",
                           "memfd_hugetlb",
                           "move_mount_set_group",
                           "openat2",
                           "get_rseq_conf",
                           "ipv6_freebind",
                           "pagemap_scan",
                           "timer_cr_ids",
                           "overlayfs_maps",
                           "breakpoints",
                           "pagemap_scan_guard_pages"})
    EXPECT_NE(feature_state({}, name), FeatureState::kUnknown) << name;
  const auto names = feature_names(features(true));
  EXPECT_TRUE(std::ranges::is_sorted(names));
  EXPECT_EQ(std::ranges::count(names, "clone3_set_tid"), 1);
  EXPECT_EQ(std::ranges::count(names, "pidfd"), 1);
}

}  // namespace
}  // namespace stasis::cli
