// SPDX-License-Identifier: Apache-2.0
// net/ipv4/conf and net/ipv6/conf. In images a value is known by its place in the list, so the
// order is part of the format.
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
