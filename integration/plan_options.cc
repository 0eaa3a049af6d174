// SPDX-License-Identifier: Apache-2.0
#include "integration/plan_options.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include <optional>
#include <set>

#include "cgroups/root_option.h"
#include "engine/base/io.h"
#include "engine/cli/validate.h"
#include "integration/config/json.h"

namespace stasis::integration {
namespace {

constexpr size_t kMaxDescriptorsFile = 64 << 10;

pb::criu_cg_mode mode_to(CgroupMode mode) {
  switch (mode) {
    case CgroupMode::kIgnore: return pb::IGNORE;
    case CgroupMode::kNone: return pb::CG_NONE;
    case CgroupMode::kProps: return pb::PROPS;
    case CgroupMode::kSoft: return pb::SOFT;
    case CgroupMode::kFull: return pb::FULL;
    case CgroupMode::kStrict: return pb::STRICT;
  }
  return pb::IGNORE;
}

// Later entries win in the engine, so the plan's go first.
void add_mounts(const std::vector<std::pair<std::string, std::string>>& planned, pb::criu_opts& opts) {
  const auto given = opts.ext_mnt();
  opts.clear_ext_mnt();
  for (const auto& [key, value] : planned) {
    auto* entry = opts.add_ext_mnt();
    entry->set_key(key);
    entry->set_val(value);
  }
  for (const auto& entry : given) *opts.add_ext_mnt() = entry;
}

void put_external(const Plan& plan, const std::vector<std::string>& external, pb::criu_opts& opts) {
  if (plan.auto_mounts) {
    opts.set_auto_ext_mnt(true);
    opts.set_ext_sharing(true);
    opts.set_ext_masters(true);
    for (const char* type : {"hugetlbfs", "tracefs"}) opts.add_enable_fs(type);
  }
  for (const std::string& one : external) opts.add_external(one);
}

void put_cgroups(const Plan& plan, pb::criu_opts& opts) {
  opts.set_manage_cgroups(plan.cgroups.mode != CgroupMode::kIgnore);
  opts.set_manage_cgroups_mode(mode_to(plan.cgroups.mode));
  opts.clear_cg_root();
  if (plan.cgroups.mode == CgroupMode::kIgnore) return;
  for (const CgroupRoot& root : plan.cgroups.roots) {
    auto* entry = opts.add_cg_root();
    if (!root.controllers.empty()) entry->set_ctrl(join(root.controllers, ","));
    entry->set_path(root.path);
  }
}

Result<uint64_t> namespace_inode(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail_sys("stat", path);
  return status.st_ino;
}

// Names under which runc's images know a network or pid namespace that stays outside.
std::string_view external_name(std::string_view type) { return type == "network" ? "extRootNetNS" : "extRootPidNS"; }
std::string_view engine_name(std::string_view type) {
  if (type == "network") return "net";
  if (type == "mount") return "mnt";
  return type;
}

Result<void> put_namespaces_dump(const Plan& plan, pb::criu_opts& opts) {
  for (const auto& [type, what] : plan.namespaces) {
    if (what == "empty") opts.set_empty_ns(opts.empty_ns() | CLONE_NEWNET);
    if (!what.starts_with("/") || (type != "network" && type != "pid")) continue;
    const uint64_t inode = TRY_CTX(namespace_inode(what), type, " namespace");
    opts.add_external(cat(engine_name(type), "[", inode, "]:", external_name(type)));
  }
  return {};
}

Result<void> put_namespaces_restore(const Plan& plan, std::vector<Fd>& held, pb::criu_opts& opts) {
  for (const auto& [type, what] : plan.namespaces) {
    if (what == "empty") opts.set_empty_ns(opts.empty_ns() | CLONE_NEWNET);
    if (!what.starts_with("/")) continue;
    if (type == "cgroup")
      return fail(Error(Code::kUnsupportedNamespace, "a restored container cannot join an existing cgroup namespace")
                      .about(what));
    if (type == "network" || type == "pid") {
      Fd fd = TRY_CTX(open_at(AT_FDCWD, what, O_RDONLY), type, " namespace");
      auto* entry = opts.add_inherit_fd();
      entry->set_key(std::string(external_name(type)));
      entry->set_fd(fd.get());
      held.push_back(std::move(fd));
    } else {
      auto* join = opts.add_join_ns();
      join->set_ns(std::string(engine_name(type)));
      join->set_ns_file(what);
    }
  }
  return {};
}

// The container's own ends of stdio pipes: whatever is our descriptor of the same number takes their place.
void put_stdio(const std::vector<std::string>& stdio, pb::criu_opts& opts) {
  for (size_t i = 0; i < stdio.size() && i < 3; ++i) {
    if (!stdio[i].starts_with("pipe:")) continue;
    auto* entry = opts.add_inherit_fd();
    entry->set_key(stdio[i]);
    entry->set_fd(static_cast<int>(i));
  }
}

void put_dump(const Plan& plan, pb::criu_opts& opts) {
  std::vector<std::pair<std::string, std::string>> mounts;
  for (const PlannedMount& mount : plan.mounts) mounts.emplace_back(mount.container, mount.name);
  add_mounts(mounts, opts);
  put_external(plan, plan.dump_external, opts);
  if (!opts.has_pid() && plan.pid > 0) opts.set_pid(plan.pid);
  // Where the tasks sit is recorded always: whether a restore manages cgroups is its own question.
  if (plan.cgroups.mode == CgroupMode::kIgnore) {
    opts.set_manage_cgroups(true);
    opts.set_manage_cgroups_mode(pb::SOFT);
  }
  if (!opts.has_freeze_cgroup() && !plan.cgroups.freezer.empty()) opts.set_freeze_cgroup(plan.cgroups.freezer);
  // The master of a container's terminal is always outside, in whoever shows it.
  if (plan.terminal) opts.set_orphan_pts_master(true);
}

Result<void> put_restore(const Plan& plan, const HostInfo& host, pb::criu_opts& opts) {
  std::vector<std::pair<std::string, std::string>> mounts;
  std::set<std::string> seen;
  for (auto mount = plan.mounts.rbegin(); mount != plan.mounts.rend(); ++mount) {
    if (!seen.insert(mount->name).second) continue;
    const std::string source = mount->source.empty() ? TRY(cgroup_source(plan, mount->hierarchy, host)) : mount->source;
    mounts.emplace(mounts.begin(), mount->name, source);
  }
  // Images of runc and ours name every masked file so; which files another kernel had is not known here.
  if (!seen.contains("/dev/null")) mounts.emplace(mounts.begin(), "/dev/null", "/dev/null");
  add_mounts(mounts, opts);
  put_external(plan, plan.restore_external, opts);
  if (!opts.has_root() && !plan.root.empty()) opts.set_root(plan.root);
  if (opts.exec_cmd_size() == 0)
    for (const std::string& word : plan.supervisor) opts.add_exec_cmd(word);
  opts.set_orphan_pts_master(true);
  return {};
}

}  // namespace

Result<void> absorb_options(pb::criu_opts& opts, PlanFor purpose, const HostInfo& host, Plan& plan) {
  std::vector<CgroupRoot> given;
  for (const auto& root : opts.cg_root()) {
    const auto ctrl = root.has_ctrl() ? std::optional<std::string_view>(root.ctrl()) : std::nullopt;
    given.push_back(TRY(cgroups::make_cgroup_root(ctrl, root.path())));
  }
  plan.cgroups.roots.insert(plan.cgroups.roots.end(), given.begin(), given.end());
  TRY(cgroups::check_cgroup_roots(plan.cgroups.roots, host.hierarchies, true));
  if (opts.has_manage_cgroups_mode())
    plan.cgroups.mode = cli::cgroup_mode_of(opts.manage_cgroups_mode());
  else if (opts.has_manage_cgroups())
    plan.cgroups.mode = opts.manage_cgroups() ? CgroupMode::kSoft : CgroupMode::kIgnore;
  else if (!given.empty() && plan.cgroups.mode == CgroupMode::kIgnore)
    plan.cgroups.mode = CgroupMode::kSoft;  // a root makes no sense otherwise
  if (plan.cgroups.mode == CgroupMode::kIgnore && !given.empty())
    return fail(Error(Code::kBadOption, "--cgroup-root together with --manage-cgroups=ignore").about("--cgroup-root"));
  if (purpose == PlanFor::kRestore && opts.exec_cmd_size() > 0)
    plan.supervisor.assign(opts.exec_cmd().begin(), opts.exec_cmd().end());
  return {};
}

Result<std::vector<Fd>> plan_to_options(const Plan& plan, PlanFor purpose, const HostInfo& host, pb::criu_opts& opts) {
  std::vector<Fd> held;
  put_cgroups(plan, opts);
  if (purpose == PlanFor::kDump) {
    put_dump(plan, opts);
    TRY(put_namespaces_dump(plan, opts));
  } else {
    TRY(put_restore(plan, host, opts));
    TRY(put_namespaces_restore(plan, held, opts));
    put_stdio(plan.stdio, opts);
  }
  return held;
}

std::string descriptors_json(const std::vector<std::string>& stdio) {
  std::vector<std::string> quoted;
  for (const std::string& text : stdio) quoted.push_back(json_quote(text));
  return cat("[", join(quoted, ","), "]");
}

Result<std::vector<std::string>> read_descriptors(const std::string& images_dir) {
  const std::string path = cat(images_dir, "/", kDescriptorsFile);
  auto text = read_file_at(AT_FDCWD, path, kMaxDescriptorsFile);
  if (!text && text.error().sys_errno() == ENOENT) return std::vector<std::string>();
  if (!text) return fail(std::move(text).error());
  const config::Node root = TRY(config::parse_json(*text, path));
  const config::Cursor at(&root, path);
  std::vector<std::string> stdio = TRY(at.strings());
  if (stdio.size() > 3) return fail(at.error("more than three descriptors"));
  return stdio;
}

}  // namespace stasis::integration
