// SPDX-License-Identifier: Apache-2.0
#include "integration/policy.h"

#include <fnmatch.h>

#include <cerrno>

#include "cgroups/path.h"
#include "cgroups/root_option.h"
#include "integration/config/text.h"
#include "integration/config/yaml.h"

namespace stasis::integration {
namespace {

using config::Cursor;

Result<std::string> clean_path(const Cursor& at) {
  const std::string path = TRY(at.string());
  if (!path.starts_with("/")) return fail(at.error(cat("the path ", json_quote(path), " is not absolute")));
  auto clean = cgroups::normalise(path, Code::kBadDescription);  // no "..", no double slashes
  if (!clean) return fail(at.error(clean.error().message()));
  return clean;
}

Result<MountRewrite> parse_rewrite(const Cursor& at, const std::string& file) {
  TRY(at.only({"name", "container", "source", "to"}));
  MountRewrite out;
  out.name = TRY(TRY(at.get("name")).string_or("*"));
  const Cursor container = TRY(at.get("container")), source = TRY(at.get("source"));
  if (container.present() == source.present()) return fail(at.error("expected either container or source"));
  if (container.present()) out.container = TRY(clean_path(container));
  if (source.present()) out.source = TRY(clean_path(source));
  out.to = TRY(clean_path(TRY(at.get("to"))));
  out.from = cat(file.substr(file.rfind('/') + 1), " ", at.path());
  return out;
}

Result<CgroupPolicy> parse_cgroups(const Cursor& at) {
  TRY(at.only({"name", "roots", "mode"}));
  CgroupPolicy out;
  out.name = TRY(TRY(at.get("name")).string());
  for (const Cursor& item : TRY(TRY(at.get("roots")).list())) {
    auto root = cgroups::parse_cgroup_root(TRY(item.string()));
    if (!root) return fail(item.error(root.error().message()));
    out.roots.push_back(*std::move(root));
  }
  const Cursor mode = TRY(at.get("mode"));
  if (!mode.present()) return out;
  auto parsed = parse_mode(TRY(mode.string()));
  if (!parsed) return fail(mode.error(parsed.error().message()));
  out.mode = *parsed;
  if (out.mode == CgroupMode::kIgnore && !out.roots.empty()) return fail(at.error("roots together with mode ignore"));
  return out;
}

bool matches(const std::string& pattern, const std::string& name) {
  return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

void rewrite(const MountRewrite& rule, PlannedMount& mount) {
  if (mount.source.empty()) return;  // follows a cgroup
  std::string source;
  if (!rule.container.empty()) {
    if (mount.container != rule.container) return;
    source = rule.to;
  } else {
    if (!cgroups::is_under(mount.source, rule.source)) return;
    source = cgroups::rebase(mount.source, rule.source, rule.to);
  }
  if (source == mount.source) return;
  mount.source = source;
  mount.from += cat(mount.from.empty() ? "" : "; ", rule.from);
}

}  // namespace

Result<Policy> parse_policy(std::string_view text, const std::string& file) {
  const config::Node root = TRY(config::parse_yaml(text, file));
  const Cursor at(&root, file);
  TRY(at.only({"engine", "supervisor", "mounts", "cgroups"}));
  Policy out;
  out.file = file;
  const Cursor engine = TRY(at.get("engine"));
  out.engine = TRY(engine.string_or(""));
  if (engine.present() && !is_engine_name(out.engine))
    return fail(engine.error("expected embedded or the absolute path of a criu"));
  const Cursor supervisor = TRY(at.get("supervisor"));
  out.supervisor = TRY(supervisor.strings());
  if (!out.supervisor.empty() && out.supervisor[0].empty()) return fail(supervisor.error("the command is empty"));
  for (const Cursor& item : TRY(TRY(at.get("mounts")).list())) out.mounts.push_back(TRY(parse_rewrite(item, file)));
  for (const Cursor& item : TRY(TRY(at.get("cgroups")).list())) out.cgroups.push_back(TRY(parse_cgroups(item)));
  return out;
}

Result<Policy> read_policy(const std::string& path) {
  const std::string file = path.empty() ? kPolicyFile : path;
  auto text = config::read_text(file);
  if (!text && path.empty() && text.error().sys_errno() == ENOENT) return Policy{};
  if (!text) return fail(std::move(text).error());
  if (trim(*text).empty()) return Policy{};
  return parse_policy(*text, file);
}

void apply_policy(const Policy& policy, PlanFor purpose, Plan& plan) {
  if (!policy.engine.empty()) plan.engine = policy.engine;
  if (purpose == PlanFor::kDump) return;
  if (!policy.supervisor.empty()) plan.supervisor = policy.supervisor;
  for (PlannedMount& mount : plan.mounts) {
    for (const MountRewrite& rule : policy.mounts) {
      if (!matches(rule.name, plan.id)) continue;
      rewrite(rule, mount);
    }
  }
  for (const CgroupPolicy& rule : policy.cgroups) {
    if (!matches(rule.name, plan.id)) continue;
    if (!rule.roots.empty()) plan.cgroups.roots = rule.roots;
    if (rule.mode)
      plan.cgroups.mode = *rule.mode;
    else if (!rule.roots.empty() && plan.cgroups.mode == CgroupMode::kIgnore)
      plan.cgroups.mode = CgroupMode::kSoft;
    if (plan.cgroups.mode == CgroupMode::kIgnore) plan.cgroups.roots.clear();
    return;
  }
}

}  // namespace stasis::integration
