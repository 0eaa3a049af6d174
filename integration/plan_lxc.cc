// SPDX-License-Identifier: Apache-2.0
#include "integration/plan_lxc.h"

#include <algorithm>
#include <set>

#include "cgroups/path.h"
#include "engine/base/log.h"

namespace stasis::integration {
namespace {

// Where in the rootfs, without the leading slash; nothing for a mount that LXC does not make either.
std::optional<std::string> inside(const std::string& destination, const lxc::Config& config) {
  const auto stripped = [](std::string_view path) {
    const size_t start = path.find_first_not_of('/');
    return start == std::string_view::npos ? std::string() : std::string(path.substr(start));
  };
  if (!destination.starts_with("/")) return stripped(destination);
  for (const std::string& top : {config.rootfs_path, config.rootfs_mount})
    if (!top.empty() && top != "/" && cgroups::is_under(destination, top))
      return stripped(destination.substr(top.size()));
  return std::nullopt;
}

// At checkpoint the mountpoint inside is the key, at restore its name without the slash.
void add_mounts(const lxc::Config& config, const HostInfo& host, Plan& plan) {
  for (const lxc::MountEntry& entry : config.mounts) {
    if (!entry.is_bind()) continue;
    const std::string from = lxc::to_string(entry.from);
    const auto name = inside(entry.destination, config);
    if (!name || name->empty()) {
      log::debug(from, ": the mount on ", entry.destination, " is outside of the rootfs, ignoring");
      continue;
    }
    const std::string path = cat("/", *name);
    plan.mounts.push_back({host.resolve ? host.resolve(path) : path, *name, entry.source, "", from});
  }
}

void add_namespaces(const lxc::Config& config, Plan& plan) {
  const auto kept = [&](std::string_view name) {
    const auto& keep = config.namespaces_kept;
    return std::find(keep.begin(), keep.end(), name) != keep.end();
  };
  const auto put = [&](std::string_view lxc_name, std::string_view type, std::string fresh) {
    if (kept(lxc_name)) return;
    const auto shared = config.namespaces_shared.find(std::string(lxc_name));
    if (shared == config.namespaces_shared.end() || shared->second.empty())
      plan.namespaces.emplace_back(type, std::move(fresh));
    else if (shared->second.starts_with("/"))
      plan.namespaces.emplace_back(type, shared->second);
    else if (parse_int<uint32_t>(shared->second))
      plan.namespaces.emplace_back(type, cat("/proc/", shared->second, "/ns/", lxc_name));
  };
  for (const char* type : {"pid", "ipc", "uts"}) put(type, type, "new");
  put("mnt", "mount", "new");
  bool host_net = false, only_empty = true;
  for (const auto& [index, net] : config.networks) {
    host_net = host_net || net.type == "none";
    only_empty = only_empty && (net.type == "empty" || net.type.empty());
  }
  if (!host_net) put("net", "network", only_empty ? "empty" : "new");
  put("cgroup", "cgroup", "new");
  if (!config.idmaps.empty()) put("user", "user", "new");
}

// A host end without a configured name gets one that is the same at every try.
std::string host_end(const std::string& id, uint32_t index, const lxc::Network& net) {
  if (!net.veth_pair.empty()) return net.veth_pair;
  uint32_t sum = 2166136261u;  // FNV-1a
  for (unsigned char c : cat(id, "/", index)) sum = (sum ^ c) * 16777619u;
  return cat("veth", hex(sum).substr(2));
}

void add_networks(const lxc::Config& config, Plan& plan) {
  for (const auto& [index, net] : config.networks) {
    const std::string name = net.name.empty() ? cat("eth", index) : net.name;
    if (net.type == "veth")
      plan.restore_external.push_back(
          cat("veth[", name, "]:", host_end(plan.id, index, net), net.link.empty() ? "" : "@", net.link));
    else if (net.type == "macvlan")
      plan.restore_external.push_back(cat("macvlan[", name, "]:", net.link));
    else if (net.type == "phys")
      plan.restore_external.push_back(cat("netdev[", name, "]:", net.link));
    else if (net.type == "vlan" || net.type == "ipvlan")
      log::debug(lxc::to_string(net.from), ": a ", net.type, " device has no name among external devices, ignoring");
  }
}

void add_cgroups(const lxc::Config& config, const runtimes::Container* container, const HostInfo& host, Plan& plan) {
  std::string top = cat("/", config.cgroup_dir.empty() ? cat("lxc.payload.", plan.id) : config.cgroup_dir);
  if (auto normal = cgroups::normalise(top, Code::kCgroupRoot)) top = *normal;
  if (container) put_cgroup_places(*container, host, plan.cgroups);
  plan.cgroups.mode = CgroupMode::kSoft;
  for (const cgroups::Hierarchy& hierarchy : host.hierarchies) {
    CgroupRoot root;
    root.controllers = hierarchy.controllers;  // none for the unified one: a root for all that are not named
    // LXC appends a number to a name that is taken.
    const auto place = plan.cgroups.paths.find(hierarchy.name());
    root.path = place != plan.cgroups.paths.end() && place->second != "/" ? place->second : top;
    plan.cgroups.roots.push_back(std::move(root));
  }
}

}  // namespace

Result<Plan> plan_lxc(const lxc::Config& config, const std::string& name, const std::string& directory,
                      const runtimes::Container* container, const HostInfo& host) {
  Plan plan;
  plan.id = name;
  plan.runtime = "lxc";
  plan.bundle = directory;
  plan.root = config.rootfs_path;
  if (!plan.root.starts_with("/"))
    return fail(Error(Code::kUnsupported, cat(directory, "/config: lxc.rootfs.path ", json_quote(config.rootfs_path),
                                              " is not a directory; only dir:/PATH is understood"))
                    .about(cat(directory, "/config")));
  if (container) {
    plan.pid = container->pid;
    plan.stdio = container->stdio;
  }
  plan.auto_mounts = true;  // LXC makes mounts that its configuration only hints at
  add_namespaces(config, plan);
  add_mounts(config, host, plan);
  add_networks(config, plan);
  add_cgroups(config, container, host, plan);
  if (config.terminals.console_path != "none" && !host.console_tty.empty()) {
    plan.mounts.push_back({"/dev/console", "console", "/dev/null", "", "LXC's console"});
    plan.dump_external.push_back(host.console_tty);
  }
  // In the container's own devpts: made anew, as for LXC, which has none to give then.
  if (!container && config.terminals.console_path != "none" && config.terminals.pty_max > 0)
    plan.restore_external.emplace_back("mnt[console]:");
  return plan;
}

}  // namespace stasis::integration
