// SPDX-License-Identifier: Apache-2.0
// net/ipv4/conf and net/ipv6/conf, whose values images know by their place in the list, so that the order is part of
// the format; others by name, in the manifest.
#include <algorithm>
#include <cerrno>

#include "engine/base/io.h"
#include "engine/namespaces/net.h"

namespace stasis::namespaces {
namespace {

using Values = google::protobuf::RepeatedPtrField<pb::sysctl_entry>;

const char* const kConf4[] = {"accept_local",
                              "accept_redirects",
                              "accept_source_route",
                              "arp_accept",
                              "arp_announce",
                              "arp_filter",
                              "arp_ignore",
                              "arp_notify",
                              "bootp_relay",
                              "disable_policy",
                              "disable_xfrm",
                              "force_igmp_version",
                              "forwarding",
                              "igmpv2_unsolicited_report_interval",
                              "igmpv3_unsolicited_report_interval",
                              "log_martians",
                              "medium_id",
                              "promote_secondaries",
                              "proxy_arp",
                              "proxy_arp_pvlan",
                              "route_localnet",
                              "rp_filter",
                              "secure_redirects",
                              "send_redirects",
                              "shared_media",
                              "src_valid_mark",
                              "tag",
                              "ignore_routes_with_linkdown",
                              "drop_gratuitous_arp",
                              "drop_unicast_in_l2_multicast"};
const char* const kConf6[] = {"accept_dad",
                              "accept_ra",
                              "accept_ra_defrtr",
                              "accept_ra_from_local",
                              "accept_ra_min_hop_limit",
                              "accept_ra_mtu",
                              "accept_ra_pinfo",
                              "accept_ra_rt_info_max_plen",
                              "accept_ra_rtr_pref",
                              "accept_redirects",
                              "accept_source_route",
                              "autoconf",
                              "dad_transmits",
                              "disable_ipv6",
                              "drop_unicast_in_l2_multicast",
                              "drop_unsolicited_na",
                              "force_mld_version",
                              "force_tllao",
                              "forwarding",
                              "hop_limit",
                              "ignore_routes_with_linkdown",
                              "keep_addr_on_down",
                              "max_addresses",
                              "max_desync_factor",
                              "mldv1_unsolicited_report_interval",
                              "mldv2_unsolicited_report_interval",
                              "mtu",
                              "ndisc_notify",
                              "optimistic_dad",
                              "proxy_ndp",
                              "regen_max_retry",
                              "router_probe_interval",
                              "router_solicitation_delay",
                              "router_solicitation_interval",
                              "router_solicitations",
                              "stable_secret",
                              "suppress_frag_ndisc",
                              "temp_prefered_lft",
                              "temp_valid_lft",
                              "use_oif_addrs_only",
                              "use_optimistic",
                              "use_tempaddr"};

// Of the namespace as a whole, without a device: what an administrator or a runtime sets for a container.
const char* const kSettings[] = {"core/somaxconn",
                                 "ipv4/fwmark_reflect",
                                 "ipv4/icmp_echo_ignore_all",
                                 "ipv4/icmp_echo_ignore_broadcasts",
                                 "ipv4/igmp_max_memberships",
                                 "ipv4/igmp_max_msf",
                                 "ipv4/ip_default_ttl",
                                 "ipv4/ip_forward_use_pmtu",
                                 "ipv4/ip_local_port_range",
                                 "ipv4/ip_local_reserved_ports",
                                 "ipv4/ip_no_pmtu_disc",
                                 "ipv4/ip_nonlocal_bind",
                                 "ipv4/ip_unprivileged_port_start",
                                 "ipv4/ping_group_range",
                                 "ipv4/tcp_abort_on_overflow",
                                 "ipv4/tcp_adv_win_scale",
                                 "ipv4/tcp_autocorking",
                                 "ipv4/tcp_base_mss",
                                 "ipv4/tcp_congestion_control",
                                 "ipv4/tcp_ecn",
                                 "ipv4/tcp_fastopen",
                                 "ipv4/tcp_fin_timeout",
                                 "ipv4/tcp_fwmark_accept",
                                 "ipv4/tcp_keepalive_intvl",
                                 "ipv4/tcp_keepalive_probes",
                                 "ipv4/tcp_keepalive_time",
                                 "ipv4/tcp_max_syn_backlog",
                                 "ipv4/tcp_max_tw_buckets",
                                 "ipv4/tcp_moderate_rcvbuf",
                                 "ipv4/tcp_mtu_probing",
                                 "ipv4/tcp_no_metrics_save",
                                 "ipv4/tcp_notsent_lowat",
                                 "ipv4/tcp_orphan_retries",
                                 "ipv4/tcp_retries1",
                                 "ipv4/tcp_retries2",
                                 "ipv4/tcp_rfc1337",
                                 "ipv4/tcp_rmem",
                                 "ipv4/tcp_sack",
                                 "ipv4/tcp_slow_start_after_idle",
                                 "ipv4/tcp_stdurg",
                                 "ipv4/tcp_syn_retries",
                                 "ipv4/tcp_synack_retries",
                                 "ipv4/tcp_syncookies",
                                 "ipv4/tcp_thin_linear_timeouts",
                                 "ipv4/tcp_timestamps",
                                 "ipv4/tcp_tw_reuse",
                                 "ipv4/tcp_window_scaling",
                                 "ipv4/tcp_wmem",
                                 "ipv4/udp_rmem_min",
                                 "ipv4/udp_wmem_min",
                                 "ipv6/bindv6only",
                                 "ipv6/ip_nonlocal_bind",
                                 "unix/max_dgram_qlen"};

std::string path_of(const char* family, const std::string& device, const char* name) {
  return cat("/proc/sys/net/", family, "/conf/", device, "/", name);
}

template <size_t N>
void dump_list(const char* family, const std::string& device, const char* const (&names)[N], Values& out) {
  for (const char* name : names) {
    auto& entry = *out.Add();
    const bool text = std::string_view(name) == "stable_secret";
    entry.set_type(text ? pb::CTL_STR : pb::CTL_32);
    const auto value = read_file_at(AT_FDCWD, path_of(family, device, name));
    if (!value) continue;  // not in this kernel, or (a secret) not set
    if (text)
      entry.set_sarg(std::string(trim(*value)));
    else if (const auto number = parse_int<int32_t>(trim(*value)))
      entry.set_iarg(*number);
  }
}

// Writes only what differs: some values have side effects, others cannot be written here.
template <size_t N>
Result<void> restore_list(const char* family, const std::string& device, const char* const (&names)[N],
                          const Values& values) {
  for (int i = 0; i < values.size() && i < static_cast<int>(N); ++i) {
    const auto& entry = values[i];
    if (entry.type() == pb::CTL_32 ? !entry.has_iarg() : entry.sarg().empty()) continue;
    const std::string wanted = entry.type() == pb::CTL_32 ? cat(entry.iarg()) : entry.sarg();
    const std::string path = path_of(family, device, names[i]);
    const auto now = read_file_at(AT_FDCWD, path);
    if (now && trim(*now) == wanted) continue;
    const auto written = write_file_at(AT_FDCWD, path, wanted);
    if (written) continue;
    if (written.error().code() != Code::kNotFound)
      return fail(Error(Code::kRestoreFailed, cat(path, " cannot be set to ", wanted, ": ", written.error().message()))
                      .about(path));
    log::warning(path, " is not in this kernel; the images have it at ", wanted, ", ignoring");
  }
  return {};
}

}  // namespace

void dump_net_sysctls(image::Writer& images) {
  for (const char* name : kSettings) {
    const auto value = read_file_at(AT_FDCWD, cat("/proc/sys/net/", name));
    if (!value) continue;  // not in this kernel
    pb::net_sysctl setting;
    setting.set_name(name), setting.set_value(std::string(trim(*value)));
    images.add_net_sysctl(setting);
  }
}

Result<std::vector<pb::net_sysctl>> load_net_sysctls(const image::Reader& images) {
  const auto* manifest = images.manifest();
  if (!manifest) return std::vector<pb::net_sysctl>{};
  for (const auto& setting : manifest->net_sysctls())
    if (std::ranges::find(kSettings, std::string_view(setting.name())) == std::end(kSettings) ||
        setting.value().size() > 4096)
      return fail(Error(Code::kImageCorrupt, cat("manifest: network setting ", setting.name())).about("manifest"));
  return std::vector<pb::net_sysctl>(manifest->net_sysctls().begin(), manifest->net_sysctls().end());
}

// Most of what differs does so since the hosts differ, and some the root of a user namespace may not set.
void restore_net_sysctls(const std::vector<pb::net_sysctl>& settings) {
  for (const auto& setting : settings) {
    const std::string path = cat("/proc/sys/net/", setting.name());
    const auto now = read_file_at(AT_FDCWD, path);
    if (!now || trim(*now) == setting.value()) continue;
    if (const auto written = write_file_at(AT_FDCWD, path, setting.value()); !written)
      log::warning(path, " stays at ", trim(*now), ", the images have ", setting.value(), ": ",
                   written.error().message(), ", ignoring");
  }
}

void dump_sysctls(pb::netns_entry& entry) {
  dump_list("ipv4", "default", kConf4, *entry.mutable_def_conf4());
  dump_list("ipv4", "all", kConf4, *entry.mutable_all_conf4());
  dump_list("ipv6", "default", kConf6, *entry.mutable_def_conf6());
  dump_list("ipv6", "all", kConf6, *entry.mutable_all_conf6());
}

void dump_sysctls(pb::net_device_entry& device) {
  dump_list("ipv4", device.name(), kConf4, *device.mutable_conf4());
  dump_list("ipv6", device.name(), kConf6, *device.mutable_conf6());
}

// "all" before "default": setting it changes the other.
Result<void> restore_sysctls(const pb::netns_entry& entry) {
  TRY(restore_list("ipv4", "all", kConf4, entry.all_conf4()));
  TRY(restore_list("ipv4", "default", kConf4, entry.def_conf4()));
  TRY(restore_list("ipv6", "all", kConf6, entry.all_conf6()));
  return restore_list("ipv6", "default", kConf6, entry.def_conf6());
}

Result<void> restore_sysctls(const pb::net_device_entry& device) {
  TRY(restore_list("ipv4", device.name(), kConf4, device.conf4()));
  return restore_list("ipv6", device.name(), kConf6, device.conf6());
}

}  // namespace stasis::namespaces
