// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/check_command.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "engine/base/strings.h"
#include "engine/cli/process.h"

namespace stasis::cli {
namespace {

// Names of criu(8) `check --feature` that the engine does not probe. Most users of --feature ask "may I rely on
// this engine for it?", so a kernel interface that is there but not used yet is answered with no.
struct Known {
  std::string_view name;
  bool supported;  // true: every kernel of 5.11 or later has it, and the engine works with it
};
constexpr Known kKnown[] = {
    {"aio_remap", false},
    {"apparmor_stacking", false},
    {"autofs", false},
    {"breakpoints", true},
    {"can_map_vdso", true},
    {"cgroupns", true},
    {"clone3_set_tid", true},
    {"compat_cr", false},
    {"external_net_ns", true},
    {"fdinfo_lock", true},
    {"get_rseq_conf", false},
    {"has_ipt_legacy", false},
    {"ipv6_freebind", true},
    {"kcmp_epoll", true},
    {"link_nsid", false},
    {"loginuid", false},
    {"mem_dirty_track", false},
    {"memfd_hugetlb", true},
    {"mnt_id", true},
    {"move_mount_set_group", false},
    {"net_diag_raw", false},
    {"network_lock_nftables", false},
    {"newifindex", false},
    {"nftables", false},
    {"ns_pid", true},
    {"nsid", false},
    {"openat2", true},
    {"overlayfs_maps", false},
    {"pagemap_scan", false},
    {"pagemap_scan_guard_pages", false},
    {"pidfd_store", false},
    {"seccomp_filters", true},
    {"seccomp_suspend", true},
    {"sk_ns", true},
    {"sk_unix_file", true},
    {"sockopt_buf_lock", false},
    {"tcp_half_closed", true},
    {"timens", false},
    {"timer_cr_ids", false},
    {"timerfd", false},
    {"tun", false},
    {"tun_ns", false},
    {"uffd", false},
    {"uffd-noncoop", false},
    {"userns", false},
};

int check_features(const std::vector<KernelFeature>& features, const std::vector<std::string>& asked) {
  int status = 0;
  for (const auto& name : asked) {
    if (name == "list") {
      std::string line;
      for (const auto& known : feature_names(features)) line += cat(line.empty() ? "" : " ", known);
      printf("%s\n", line.c_str());
      continue;
    }
    const FeatureState state = feature_state(features, name);
    if (state == FeatureState::kSupported) continue;
    status = 1;
    if (state == FeatureState::kUnknown)
      report(Error(Code::kUsage, cat("unknown feature ", name, "; `check --feature list` names them")).about(name));
    else
      report(Error(Code::kKernelFeature, cat("feature ", name, " is not supported here")).about(name));
  }
  return status;
}

}  // namespace

Result<void> check_required(const std::vector<KernelFeature>& features) {
  std::optional<Error> error;
  for (const auto& feature : features) {
    if (!feature.required || feature.present) continue;
    Error missing =
        Error(Code::kKernelFeature, cat("the kernel lacks ", feature.name, ": ", feature.what)).about(feature.name);
    if (error) {
      error->also().push_back(std::move(missing));
    } else {
      error = std::move(missing);
    }
  }
  if (error) return fail(std::move(*error));
  return {};
}

FeatureState feature_state(const std::vector<KernelFeature>& features, std::string_view name) {
  for (const auto& feature : features)
    if (feature.name == name) return feature.present ? FeatureState::kSupported : FeatureState::kUnsupported;
  for (const auto& known : kKnown)
    if (known.name == name) return known.supported ? FeatureState::kSupported : FeatureState::kUnsupported;
  return FeatureState::kUnknown;
}

std::vector<std::string> feature_names(const std::vector<KernelFeature>& features) {
  std::vector<std::string> names;
  for (const auto& feature : features) names.push_back(feature.name);
  for (const auto& known : kKnown) names.emplace_back(known.name);
  std::ranges::sort(names);
  const auto rest = std::ranges::unique(names);
  names.erase(rest.begin(), rest.end());
  return names;
}

int check_command(const std::vector<KernelFeature>& features, const std::vector<std::string>& asked, bool all) {
  if (!asked.empty()) return check_features(features, asked);
  auto required = check_required(features);
  if (!required) {
    report(required.error());
    return 1;
  }
  if (all)
    for (const auto& feature : features)
      if (!feature.present) printf("Optional feature missing: %s: %s\n", feature.name.c_str(), feature.what.c_str());
  printf("Looks good.\n");
  return 0;
}

}  // namespace stasis::cli
