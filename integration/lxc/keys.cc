// SPDX-License-Identifier: Apache-2.0
#include "integration/lxc/keys.h"

#include <algorithm>
#include <array>
#include <limits>

namespace stasis::integration::lxc {
namespace {

using Apply = Result<void> (*)(const Entry& entry, std::string_view rest, Config& config);

struct Key {
  std::string_view name;  // ends with '.': a family; `rest` is what follows
  Apply apply;
};

Result<uint32_t> number(const Entry& entry, std::string_view text) {
  const auto value = parse_int<uint32_t>(text);
  if (!value) return fail(bad_entry(entry.from, cat(json_quote(text), " is not a number that fits 32 bits")));
  return *value;
}

Result<bool> truth(const Entry& entry) {
  if (entry.value == "0" || entry.value.empty()) return false;
  if (entry.value == "1") return true;
  return fail(bad_entry(entry.from, cat("expected 0 or 1, found ", json_quote(entry.value))));
}

void add_words(std::string_view text, std::vector<std::string>& out) {
  for (std::string_view word : fields(text)) out.emplace_back(word);
}

template <std::string Config::*Member>
Result<void> text(const Entry& entry, std::string_view, Config& config) {
  config.*Member = entry.value;
  return {};
}

template <bool Config::*Member>
Result<void> flag(const Entry& entry, std::string_view, Config& config) {
  config.*Member = TRY(truth(entry));
  return {};
}

// An empty value empties the list, as LXC has it.
template <std::vector<std::string> Config::*Member>
Result<void> words(const Entry& entry, std::string_view, Config& config) {
  if (entry.value.empty()) (config.*Member).clear();
  add_words(entry.value, config.*Member);
  return {};
}

template <std::vector<Limit> Config::*Member>
Result<void> limit(const Entry& entry, std::string_view rest, Config& config) {
  if (entry.value.empty())
    std::erase_if(config.*Member, [&](const Limit& one) { return one.key == rest; });
  else
    (config.*Member).push_back({std::string(rest), entry.value, entry.from});
  return {};
}

template <uint32_t Terminals::*Member>
Result<void> terminal_number(const Entry& entry, std::string_view, Config& config) {
  config.terminals.*Member = entry.value.empty() ? 0 : TRY(number(entry, entry.value));
  return {};
}

template <std::string Terminals::*Member>
Result<void> terminal_text(const Entry& entry, std::string_view, Config& config) {
  config.terminals.*Member = entry.value;
  return {};
}

template <uint32_t Init::*Member>
Result<void> init_number(const Entry& entry, std::string_view, Config& config) {
  config.init.*Member = entry.value.empty() ? 0 : TRY(number(entry, entry.value));
  return {};
}

template <std::string Init::*Member>
Result<void> init_text(const Entry& entry, std::string_view, Config& config) {
  config.init.*Member = entry.value;
  return {};
}

Result<void> init_groups(const Entry& entry, std::string_view, Config& config) {
  config.init.groups.clear();
  for (std::string_view part : split(entry.value, ','))
    if (!trim(part).empty()) config.init.groups.push_back(TRY(number(entry, trim(part))));
  return {};
}

Result<void> rootfs_path(const Entry& entry, std::string_view, Config& config) {
  config.rootfs_path = entry.value.starts_with("dir:") ? entry.value.substr(4) : entry.value;
  return {};
}

Result<void> mount_entry(const Entry& entry, std::string_view, Config& config) {
  if (entry.value.empty())
    config.mounts.clear();
  else
    config.mounts.push_back(TRY(parse_mount_entry(entry.value, entry.from)));
  return {};
}

// "u 0 100000 65536"; "b" is both.
Result<void> idmap(const Entry& entry, std::string_view, Config& config) {
  if (entry.value.empty()) {
    config.idmaps.clear();
    return {};
  }
  const auto parts = fields(entry.value);
  if (parts.size() != 4 || parts[0].size() != 1 || !std::string_view("ugb").contains(parts[0][0]))
    return fail(bad_entry(entry.from, "expected u, g or b, the first id inside, the first outside, and how many"));
  IdMap map{parts[0][0], TRY(number(entry, parts[1])), TRY(number(entry, parts[2])), TRY(number(entry, parts[3]))};
  constexpr uint64_t kIds = std::numeric_limits<uint32_t>::max();
  if (map.count == 0 || uint64_t{map.inside} + map.count > kIds || uint64_t{map.outside} + map.count > kIds)
    return fail(bad_entry(entry.from, "the ids do not fit 32 bits, or there are none"));
  config.idmaps.push_back(map);
  return {};
}

Result<void> environment(const Entry& entry, std::string_view, Config& config) {
  if (entry.value.empty())
    config.environment.clear();
  else
    config.environment.push_back(entry.value);
  return {};
}

Result<void> capabilities_kept(const Entry& entry, std::string_view, Config& config) {
  if (entry.value.empty() || entry.value == "none") config.cap_keep.clear();
  add_words(entry.value, config.cap_keep);
  return {};
}

Result<void> namespace_shared(const Entry& entry, std::string_view rest, Config& config) {
  config.namespaces_shared[std::string(rest)] = entry.value;
  return {};
}

Result<void> hook(const Entry& entry, std::string_view rest, Config& config) {
  if (rest != "version") config.hooks.emplace_back(rest, entry.value);
  return {};
}

Result<void> remembered(const Entry&, std::string_view, Config&) { return {}; }

std::string* network_text(std::string_view key, Network& net) {
  const std::pair<std::string_view, std::string*> kTexts[] = {
      {"type", &net.type},
      {"flags", &net.flags},
      {"link", &net.link},
      {"name", &net.name},
      {"hwaddr", &net.hwaddr},
      {"mtu", &net.mtu},
      {"script.up", &net.script_up},
      {"script.down", &net.script_down},
      {"veth.pair", &net.veth_pair},
      {"veth.mode", &net.mode},
      {"macvlan.mode", &net.mode},
      {"ipvlan.mode", &net.mode},
      {"vlan.id", &net.vlan_id},
      {"ipv4.gateway", &net.ipv4_gateway},
      {"ipv6.gateway", &net.ipv6_gateway},
  };
  for (const auto& [name, member] : kTexts)
    if (name == key) return member;
  return nullptr;
}

Result<void> network(const Entry& entry, std::string_view rest, Config& config) {
  const size_t dot = rest.find('.');
  const uint32_t index = TRY(number(entry, rest.substr(0, dot)));
  if (dot == std::string_view::npos) {
    if (!entry.value.empty()) return fail(bad_entry(entry.from, "lxc.net.N takes no value of its own"));
    config.networks.erase(index);
    return {};
  }
  const auto [place, fresh] = config.networks.try_emplace(index);
  Network& net = place->second;
  if (fresh) net.from = entry.from;
  const std::string_view key = rest.substr(dot + 1);
  if (std::string* member = network_text(key, net)) {
    static constexpr std::array<std::string_view, 7> kTypes = {"none", "empty",  "veth", "macvlan",
                                                               "phys", "ipvlan", "vlan"};
    if (key == "type" && std::find(kTypes.begin(), kTypes.end(), entry.value) == kTypes.end())
      return fail(bad_entry(entry.from, cat("unknown network type ", json_quote(entry.value))));
    *member = entry.value;
  } else if (key == "ipv4.address" || key == "ipv6.address") {
    auto& list = key[3] == '4' ? net.ipv4 : net.ipv6;
    entry.value.empty() ? list.clear() : list.push_back(entry.value);
  } else if (!key.starts_with("veth.") && key != "l2proxy" && key != "ipvlan.isolation") {
    config.unknown.push_back(entry.key);
  }
  return {};
}

constexpr Key kKeys[] = {
    {"lxc.rootfs.path", rootfs_path},
    {"lxc.rootfs.mount", text<&Config::rootfs_mount>},
    {"lxc.rootfs.options", text<&Config::rootfs_options>},
    {"lxc.uts.name", text<&Config::uts_name>},
    {"lxc.arch", text<&Config::arch>},
    {"lxc.mount.entry", mount_entry},
    {"lxc.mount.auto", words<&Config::mount_auto>},
    {"lxc.cgroup.dir", text<&Config::cgroup_dir>},
    {"lxc.cgroup.dir.container", text<&Config::cgroup_dir>},
    {"lxc.cgroup.dir.container.inner", remembered},
    {"lxc.cgroup.dir.monitor", remembered},
    {"lxc.cgroup.dir.monitor.pivot", remembered},
    {"lxc.cgroup.relative", flag<&Config::cgroup_relative>},
    {"lxc.cgroup.", limit<&Config::cgroup>},
    {"lxc.cgroup2.", limit<&Config::cgroup2>},
    {"lxc.prlimit.", limit<&Config::prlimits>},
    {"lxc.sysctl.", limit<&Config::sysctls>},
    {"lxc.proc.", limit<&Config::proc>},
    {"lxc.net.", network},
    {"lxc.init.cmd", init_text<&Init::cmd>},
    {"lxc.init.cwd", init_text<&Init::cwd>},
    {"lxc.init.uid", init_number<&Init::uid>},
    {"lxc.init.gid", init_number<&Init::gid>},
    {"lxc.init.groups", init_groups},
    {"lxc.idmap", idmap},
    {"lxc.tty.max", terminal_number<&Terminals::tty_max>},
    {"lxc.tty.dir", terminal_text<&Terminals::tty_dir>},
    {"lxc.pty.max", terminal_number<&Terminals::pty_max>},
    {"lxc.console.path", terminal_text<&Terminals::console_path>},
    {"lxc.console.logfile", terminal_text<&Terminals::console_logfile>},
    {"lxc.environment", environment},
    {"lxc.cap.drop", words<&Config::cap_drop>},
    {"lxc.cap.keep", capabilities_kept},
    {"lxc.seccomp.profile", text<&Config::seccomp_profile>},
    {"lxc.apparmor.profile", text<&Config::apparmor_profile>},
    {"lxc.selinux.context", text<&Config::selinux_context>},
    {"lxc.namespace.clone", words<&Config::namespaces_cloned>},
    {"lxc.namespace.keep", words<&Config::namespaces_kept>},
    {"lxc.namespace.share.", namespace_shared},
    {"lxc.hook.", hook},
    {"lxc.autodev", flag<&Config::autodev>},
    {"lxc.no_new_privs", flag<&Config::no_new_privs>},
    {"lxc.autodev.tmpfs.size", remembered},
    {"lxc.apparmor.", remembered},
    {"lxc.selinux.", remembered},
    {"lxc.seccomp.", remembered},
    {"lxc.console.", remembered},
    {"lxc.start.", remembered},
    {"lxc.log.", remembered},
    {"lxc.signal.", remembered},
    {"lxc.monitor.", remembered},
    {"lxc.keyring.session", remembered},
    {"lxc.time.offset.", remembered},
    {"lxc.rootfs.managed", remembered},
    {"lxc.execute.cmd", remembered},
    {"lxc.ephemeral", remembered},
    {"lxc.sched.core", remembered},
    {"lxc.group", remembered},
};

}  // namespace

Error bad_entry(const From& from, std::string_view text) {
  return Error(Code::kBadDescription, cat(from.file, ":", from.line, ": ", text)).about(from.file);
}

Result<void> apply_entry(const Entry& entry, Config& config) {
  for (const Key& key : kKeys)
    if (entry.key == key.name) return key.apply(entry, {}, config);
  for (const Key& key : kKeys)
    if (key.name.ends_with(".") && entry.key.size() > key.name.size() && entry.key.starts_with(key.name))
      return key.apply(entry, std::string_view(entry.key).substr(key.name.size()), config);
  config.unknown.push_back(entry.key);
  return {};
}

}  // namespace stasis::integration::lxc
