// SPDX-License-Identifier: Apache-2.0
#include "integration/plan.h"

#include <algorithm>
#include <array>

#include "cgroups/path.h"
#include "cgroups/root_option.h"
#include "integration/oci/cgroups_path.h"

namespace stasis::integration {
namespace {

constexpr std::array<std::pair<CgroupMode, std::string_view>, 6> kModes = {{
    {CgroupMode::kIgnore, "ignore"},
    {CgroupMode::kNone, "none"},
    {CgroupMode::kProps, "props"},
    {CgroupMode::kSoft, "soft"},
    {CgroupMode::kFull, "full"},
    {CgroupMode::kStrict, "strict"},
}};

std::string absolute(const std::string& path, const std::string& bundle) {
  if (path.empty()) return bundle;
  return path[0] == '/' ? path : cat(bundle, "/", path);
}

std::string resolved(const HostInfo& host, const std::string& path) { return host.resolve ? host.resolve(path) : path; }

std::string base_name(std::string_view path) { return std::string(path.substr(path.rfind('/') + 1)); }

// A cgroup mount without a cgroup namespace shows one bind per v1 hierarchy, named after
// the host's directory for it. On a pure v2 host it is an ordinary mount, dumped as such.
void add_cgroup_binds(const oci::Spec& spec, const oci::Mount& mount, const std::string& from, const HostInfo& host,
                      Plan& plan) {
  if (spec.find_namespace("cgroup")) return;
  const std::string destination = resolved(host, mount.destination);
  for (const cgroups::Hierarchy& hierarchy : host.hierarchies) {
    if (hierarchy.unified || hierarchy.mount_point.empty()) continue;
    const std::string inside = cgroups::join_path(destination, base_name(hierarchy.mount_point));
    plan.mounts.push_back({inside, inside, "", hierarchy.name(), cat(from, ", hierarchy ", hierarchy.name())});
  }
}

void add_mounts(const oci::Spec& spec, const std::string& bundle, const HostInfo& host, Plan& plan) {
  for (size_t i = 0; i < spec.mounts.size(); ++i) {
    const oci::Mount& mount = spec.mounts[i];
    const std::string from = cat("config.json $.mounts[", i, "]");
    if (mount.is_bind()) {
      const std::string inside = resolved(host, mount.destination);
      plan.mounts.push_back({inside, inside, absolute(mount.source, bundle), "", cat(from, ", bind")});
    } else if (mount.type == "cgroup") {
      add_cgroup_binds(spec, mount, from, host, plan);
    }
  }
}

void add_masked(const oci::Spec& spec, const HostInfo& host, Plan& plan) {
  for (size_t i = 0; i < spec.masked_paths.size(); ++i) {
    const std::string& path = spec.masked_paths[i];
    if (!host.is_masked_file || !host.is_masked_file(path)) continue;
    plan.mounts.push_back({path, "/dev/null", "/dev/null", "", cat("config.json $.linux.maskedPaths[", i, "]")});
  }
}

// Device nodes are made with mknod(2), except in a user namespace, which forbids it: there they are binds.
void add_devices(const oci::Spec& spec, Plan& plan) {
  if (!spec.find_namespace("user")) return;
  for (const char* path : {"/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/random", "/dev/urandom"})
    plan.mounts.push_back({path, path, path, "", "default device, user namespace"});
  for (size_t i = 0; i < spec.devices.size(); ++i) {
    const std::string& path = spec.devices[i].path;
    plan.mounts.push_back({path, path, path, "", cat("config.json $.linux.devices[", i, "], user namespace")});
  }
}

void add_cgroups(const oci::Spec& spec, const runtimes::Container* container, const HostInfo& host, Plan& plan) {
  if (container) return put_cgroup_places(*container, host, plan.cgroups);
  const std::string path = oci::cgroup_directory(spec.cgroups_path, "").value_or("");
  if (path.empty()) return;
  for (const cgroups::Hierarchy& hierarchy : host.hierarchies) plan.cgroups.paths[hierarchy.name()] = path;
}

}  // namespace

void put_cgroup_places(const runtimes::Container& container, const HostInfo& host, PlannedCgroups& out) {
  // The directory of "" is the unified hierarchy; in a hybrid host the freezer is elsewhere.
  auto freezer = container.cgroup_dirs.find("freezer");
  if (freezer == container.cgroup_dirs.end()) freezer = container.cgroup_dirs.find("");
  if (freezer != container.cgroup_dirs.end()) out.freezer = freezer->second;
  for (const cgroups::Hierarchy& hierarchy : host.hierarchies) {
    if (hierarchy.mount_point.empty()) continue;
    for (const std::string& controller : cgroups::controller_names(hierarchy.name())) {
      auto dir = container.cgroup_dirs.find(controller);
      if (dir == container.cgroup_dirs.end()) continue;
      if (!cgroups::is_under(dir->second, hierarchy.mount_point)) continue;
      out.paths[hierarchy.name()] = cgroups::rebase(dir->second, hierarchy.mount_point, "/");
      break;
    }
  }
}

std::map<std::string, std::string> cgroup_dirs_of(const cgroups::Membership& membership, const std::string& cgroup_path,
                                                  const HostInfo& host) {
  std::map<std::string, std::string> out;
  for (const cgroups::Hierarchy& hierarchy : host.hierarchies) {
    const auto place = membership.find(hierarchy.name());
    if (place == membership.end() || hierarchy.mount_point.empty()) continue;
    const bool below = cgroup_path.starts_with("/") && cgroups::is_under(place->second, cgroup_path);
    const std::string& path = below ? cgroup_path : place->second;
    for (const std::string& controller : cgroups::controller_names(hierarchy.name()))
      out[controller] = path == "/" ? hierarchy.mount_point : cat(hierarchy.mount_point, path);
  }
  return out;
}

const std::string* Plan::find_namespace(std::string_view type) const {
  for (const auto& [name, what] : namespaces)
    if (name == type) return &what;
  return nullptr;
}

Result<Plan> plan_oci(const oci::Spec& spec, const std::string& bundle, const runtimes::Container* container,
                      const HostInfo& host) {
  Plan plan;
  plan.bundle = bundle;
  plan.terminal = spec.process.terminal;
  plan.root = absolute(spec.root_path, bundle);
  if (spec.root_path.empty())
    return fail(Error(Code::kBadDescription, cat(bundle, "/config.json: $.root.path: missing; expected a string"))
                    .about(cat(bundle, "/config.json")));
  if (container) {
    plan.id = container->id;
    plan.runtime = container->runtime;
    plan.pid = container->pid;
    plan.stdio = container->stdio;
    if (!container->rootfs.empty()) plan.root = container->rootfs;
  }
  for (const oci::Namespace& ns : spec.namespaces) {
    plan.namespaces.emplace_back(ns.type, ns.path.empty() ? "new" : ns.path);
  }
  add_mounts(spec, bundle, host, plan);
  add_masked(spec, host, plan);
  add_devices(spec, plan);
  add_cgroups(spec, container, host, plan);
  return plan;
}

Result<std::string> cgroup_source(const Plan& plan, const std::string& hierarchy, const HostInfo& host) {
  const auto found = std::find_if(host.hierarchies.begin(), host.hierarchies.end(),
                                  [&](const cgroups::Hierarchy& h) { return !h.unified && h.name() == hierarchy; });
  if (found == host.hierarchies.end() || found->mount_point.empty())
    return fail(Error(Code::kCgroup, cat("this host has no mounted cgroup hierarchy ", json_quote(hierarchy)))
                    .about(cat("hierarchy ", hierarchy)));
  std::string path = "/";
  const auto own = host.own.find(hierarchy), recorded = plan.cgroups.paths.find(hierarchy);
  if (own != host.own.end()) path = own->second;
  if (plan.cgroups.mode != CgroupMode::kIgnore) {
    const auto root = TRY(cgroups::root_for(*found, plan.cgroups.roots));
    if (root)
      path = *root;
    else if (recorded != plan.cgroups.paths.end())
      path = recorded->second;
  }
  return path == "/" ? found->mount_point : cat(found->mount_point, path);
}

bool is_engine_name(std::string_view name) {
  return name == kEmbedded || (name.starts_with("/") && name.find('\0') == std::string_view::npos);
}

std::string_view mode_name(CgroupMode mode) {
  for (const auto& [value, name] : kModes)
    if (value == mode) return name;
  return "ignore";
}

Result<CgroupMode> parse_mode(std::string_view name) {
  for (const auto& [value, known] : kModes)
    if (known == name) return value;
  return fail(Error(Code::kBadOption,
                    cat("unknown cgroup mode ", json_quote(name), "; known: ignore, none, props, soft, full, strict"))
                  .about("cgroup mode"));
}

std::string root_text(const CgroupRoot& root) {
  if (root.controllers.empty()) return root.path;
  return cat(join(root.controllers, ","), ":", root.path);
}

}  // namespace stasis::integration
