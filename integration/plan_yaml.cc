// SPDX-License-Identifier: Apache-2.0
#include "integration/plan_yaml.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <limits>

#include "cgroups/path.h"
#include "cgroups/root_option.h"
#include "engine/base/io.h"
#include "integration/config/yaml.h"

namespace stasis::integration {
namespace {

using config::Cursor;
using config::yaml_scalar;

constexpr int kVersion = 1;  // of the plan format
constexpr std::array<std::string_view, 8> kNamespaceTypes = {"pid",   "network", "ipc",    "uts",
                                                             "mount", "user",    "cgroup", "time"};

std::string list_text(const std::vector<std::string>& items) {
  std::vector<std::string> quoted;
  for (const std::string& item : items) quoted.push_back(yaml_scalar(item));
  return cat("[", join(quoted, ", "), "]");
}

void put_mount(const PlannedMount& mount, std::string& out) {
  if (!mount.from.empty()) out += cat("  - from: ", yaml_scalar(mount.from), "\n");
  out += cat(mount.from.empty() ? "  - " : "    ", "container: ", yaml_scalar(mount.container), "\n");
  out += cat("    name: ", yaml_scalar(mount.name), "\n");
  if (!mount.hierarchy.empty()) out += cat("    hierarchy: ", yaml_scalar(mount.hierarchy), "\n");
  if (!mount.source.empty()) out += cat("    source: ", yaml_scalar(mount.source), "\n");
}

void put_cgroups(const PlannedCgroups& cgroups, std::string& out) {
  out += "# mode: ignore (cgroups untouched), none, props, soft, full or strict.\n";
  out += "# roots: where restored tasks go, \"/path\" or \"controller,controller:/path\".\n";
  out += cat("cgroups:\n  mode: ", mode_name(cgroups.mode), "\n");
  std::vector<std::string> roots;
  for (const CgroupRoot& root : cgroups.roots) roots.push_back(root_text(root));
  out += cat("  roots: ", list_text(roots), "\n");
  if (!cgroups.freezer.empty()) out += cat("  freezer: ", yaml_scalar(cgroups.freezer), "\n");
  if (cgroups.paths.empty()) return;
  out += "  paths:  # where the container was; the unified hierarchy is \"\"\n";
  for (const auto& [hierarchy, path] : cgroups.paths)
    out += cat("    ", yaml_scalar(hierarchy), ": ", yaml_scalar(path), "\n");
}

// ---- reading

Result<std::string> absolute_path(const Cursor& at) {
  const std::string path = TRY(at.string());
  if (!path.starts_with("/")) return fail(at.error(cat("the path ", json_quote(path), " is not absolute")));
  for (std::string_view part : split(path, '/'))
    if (part == "..") return fail(at.error("the path has a \"..\" in it"));
  return path;
}

Result<std::string> absolute_path_or_empty(const Cursor& at) {
  if (!at.present()) return std::string();
  return absolute_path(at);
}

Result<PlannedMount> parse_mount(const Cursor& at) {
  TRY(at.only({"from", "container", "name", "hierarchy", "source"}));
  PlannedMount out;
  out.from = TRY(TRY(at.get("from")).string_or(""));
  out.container = TRY(absolute_path(TRY(at.get("container"))));
  const Cursor name = TRY(at.get("name"));
  out.name = TRY(name.string());
  if (out.name.empty()) return fail(name.error("the name is empty"));
  out.hierarchy = TRY(TRY(at.get("hierarchy")).string_or(""));
  const Cursor source = TRY(at.get("source"));
  out.source = TRY(absolute_path_or_empty(source));
  if (out.source.empty() && out.hierarchy.empty()) return fail(source.error("missing; expected a path on the host"));
  return out;
}

Result<PlannedCgroups> parse_cgroups(const Cursor& at) {
  TRY(at.only({"mode", "roots", "freezer", "paths"}));
  PlannedCgroups out;
  const Cursor mode = TRY(at.get("mode"));
  auto parsed = parse_mode(TRY(mode.string_or("ignore")));
  if (!parsed) return fail(mode.error(parsed.error().message()));
  out.mode = *parsed;
  for (const Cursor& item : TRY(TRY(at.get("roots")).list())) {
    auto root = cgroups::parse_cgroup_root(TRY(item.string()));
    if (!root) return fail(item.error(root.error().message()));
    out.roots.push_back(*std::move(root));
  }
  out.freezer = TRY(absolute_path_or_empty(TRY(at.get("freezer"))));
  for (const auto& [hierarchy, path] : TRY(TRY(at.get("paths")).map())) out.paths[hierarchy] = TRY(absolute_path(path));
  return out;
}

Result<void> parse_container(const Cursor& at, Plan& plan) {
  TRY(at.only({"id", "runtime", "pid", "bundle"}));
  plan.id = TRY(TRY(at.get("id")).string_or(""));
  plan.runtime = TRY(TRY(at.get("runtime")).string_or(""));
  plan.bundle = TRY(absolute_path_or_empty(TRY(at.get("bundle"))));
  const Cursor pid = TRY(at.get("pid"));
  if (!pid.present()) return {};
  const int64_t number = TRY(pid.integer());
  if (number < 0 || number > 1 << 22) return fail(pid.error("not a process id"));
  plan.pid = static_cast<pid_t>(number);
  return {};
}

Result<void> parse_namespaces(const Cursor& at, Plan& plan) {
  for (const auto& [type, item] : TRY(at.map())) {
    if (std::find(kNamespaceTypes.begin(), kNamespaceTypes.end(), type) == kNamespaceTypes.end())
      return fail(item.error("unknown namespace type"));
    std::string what = TRY(item.string());
    if (what != "new" && !(what == "empty" && type == "network") && !what.starts_with("/"))
      return fail(item.error("expected new, the path of a namespace, or (network only) empty"));
    plan.namespaces.emplace_back(type, std::move(what));
  }
  return {};
}

}  // namespace

std::string to_yaml(const Plan& plan) {
  std::string out =
      cat("# How stasis sees this container. Edit it and give it to `stasis restore --plan FILE`.\nplan: ", kVersion,
          "\ncontainer:\n");
  if (!plan.id.empty()) out += cat("  id: ", yaml_scalar(plan.id), "\n");
  if (!plan.runtime.empty()) out += cat("  runtime: ", yaml_scalar(plan.runtime), "\n");
  out += cat("  pid: ", plan.pid, "\n");
  if (!plan.bundle.empty()) out += cat("  bundle: ", yaml_scalar(plan.bundle), "\n");
  out += cat("root: ", yaml_scalar(plan.root), "\nengine: ", yaml_scalar(plan.engine),
             "\nterminal: ", plan.terminal ? "true" : "false", "\n");
  put_cgroups(plan.cgroups, out);
  out += "# new, empty (network: made new, its contents are not kept) or the path of an existing one.\n";
  out += plan.namespaces.empty() ? "namespaces: {}\n" : "namespaces:\n";
  for (const auto& [type, what] : plan.namespaces) out += cat("  ", type, ": ", yaml_scalar(what), "\n");
  out += "# External mounts: at checkpoint container -> name, at restore name -> source.\n";
  out += "# One with a hierarchy and no source follows the cgroup the tasks are restored into.\n";
  out += plan.mounts.empty() ? "mounts: []\n" : "mounts:\n";
  for (const PlannedMount& mount : plan.mounts) put_mount(mount, out);
  out += cat("stdio: ", list_text(plan.stdio), "\n");
  out += cat("supervisor: ", list_text(plan.supervisor), "\n");
  return out;
}

Result<Plan> from_yaml(std::string_view text, const std::string& file) {
  const config::Node root = TRY(config::parse_yaml(text, file));
  const Cursor at(&root, file);
  if (!at.present()) return fail(at.error("empty"));
  TRY(at.only(
      {"plan", "container", "root", "engine", "terminal", "cgroups", "namespaces", "mounts", "stdio", "supervisor"}));
  Plan plan;
  const Cursor version = TRY(at.get("plan"));
  if (TRY(version.integer()) != kVersion) return fail(version.error(cat("unknown plan version; expected ", kVersion)));
  TRY(parse_container(TRY(at.get("container")), plan));
  plan.root = TRY(absolute_path_or_empty(TRY(at.get("root"))));
  const Cursor engine = TRY(at.get("engine"));
  plan.engine = TRY(engine.string_or("embedded"));
  if (plan.engine != "embedded" && !plan.engine.starts_with('/'))
    return fail(engine.error("expected embedded, or the absolute path of an engine"));
  plan.terminal = TRY(TRY(at.get("terminal")).boolean_or(false));
  plan.cgroups = TRY(parse_cgroups(TRY(at.get("cgroups"))));
  TRY(parse_namespaces(TRY(at.get("namespaces")), plan));
  for (const Cursor& item : TRY(TRY(at.get("mounts")).list())) plan.mounts.push_back(TRY(parse_mount(item)));
  const Cursor stdio = TRY(at.get("stdio"));
  plan.stdio = TRY(stdio.strings());
  if (plan.stdio.size() > 3) return fail(stdio.error("more than three descriptors"));
  plan.supervisor = TRY(TRY(at.get("supervisor")).strings());
  return plan;
}

Result<Plan> read_plan(const std::string& path) {
  const std::string text = TRY(read_file_at(AT_FDCWD, path, config::kMaxText));
  return from_yaml(text, path);
}

namespace {

std::string json_list(const std::vector<std::string>& items) {
  std::vector<std::string> quoted;
  for (const std::string& item : items) quoted.push_back(json_quote(item));
  return cat("[", join(quoted, ","), "]");
}

template <class Pairs>
std::string json_map(const Pairs& pairs) {
  std::vector<std::string> members;
  for (const auto& [key, value] : pairs) members.push_back(cat(json_quote(key), ":", json_quote(value)));
  return cat("{", join(members, ","), "}");
}

}  // namespace

std::string to_json(const Plan& plan) {
  std::vector<std::string> roots, mounts;
  for (const CgroupRoot& root : plan.cgroups.roots) roots.push_back(root_text(root));
  for (const PlannedMount& mount : plan.mounts)
    mounts.push_back(json_map(std::vector<std::pair<std::string, std::string>>{{"from", mount.from},
                                                                               {"container", mount.container},
                                                                               {"name", mount.name},
                                                                               {"hierarchy", mount.hierarchy},
                                                                               {"source", mount.source}}));
  return cat("{\"plan\":", kVersion, ",\"container\":{\"id\":", json_quote(plan.id),
             ",\"runtime\":", json_quote(plan.runtime), ",\"pid\":", plan.pid, ",\"bundle\":", json_quote(plan.bundle),
             "},\"root\":", json_quote(plan.root), ",\"engine\":", json_quote(plan.engine),
             ",\"terminal\":", plan.terminal ? "true" : "false",
             ",\"cgroups\":{\"mode\":", json_quote(mode_name(plan.cgroups.mode)), ",\"roots\":", json_list(roots),
             ",\"freezer\":", json_quote(plan.cgroups.freezer), ",\"paths\":", json_map(plan.cgroups.paths),
             "},\"namespaces\":", json_map(plan.namespaces), ",\"mounts\":[", join(mounts, ","),
             "],\"stdio\":", json_list(plan.stdio), ",\"supervisor\":", json_list(plan.supervisor), "}");
}

}  // namespace stasis::integration
