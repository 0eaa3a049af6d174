// SPDX-License-Identifier: Apache-2.0
#include "integration/cli/target.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <memory>

#include "engine/base/log.h"
#include "integration/host.h"
#include "integration/lxc/config.h"
#include "integration/oci/cgroups_path.h"
#include "integration/oci/spec.h"
#include "integration/plan_lxc.h"
#include "integration/plan_yaml.h"
#include "integration/policy.h"
#include "integration/runtimes/container.h"
#include "integration/runtimes/places.h"

namespace stasis::integration::cli {
namespace {

Result<std::string> real_path(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
  if (!real) return fail_sys("find", path);
  return std::string(real.get());
}

Result<runtimes::Container> find_container(const Session& session, const std::string& runtime, const std::string& id) {
  runtimes::FindOptions options;
  if (const std::string* root = session.value("runtime-root")) options.root = *root;
  return runtimes::find(runtime, id, options);
}

// What the owner of this host and the command line say about any container. A plan file is left as it is.
Result<void> settle(const Session& session, PlanFor purpose, Plan& plan) {
  const std::string* config = session.value("config");
  apply_policy(TRY(read_policy(config ? *config : "")), purpose, plan);
  if (session.request.opts.cg_root_size() > 0) plan.cgroups.roots.clear();  // those take their place
  return {};
}

Result<lxc::Config> lxc_config(const std::string& file) {
  lxc::Config config = TRY(lxc::read_config(file));
  for (const std::string& key : config.unknown) log::debug(file, ": LXC has no key ", key, ", ignoring");
  return config;
}

// Runtimes that do not record directories put a container into one place, where its first process is.
Result<void> find_cgroups(runtimes::Container& container, const HostInfo& host) {
  if (!container.cgroup_dirs.empty()) return {};
  const auto membership = TRY(cgroups::read_membership(container.pid));
  container.cgroup_dirs = cgroup_dirs_of(membership, container.cgroup_path, host);
  return {};
}

Result<Plan> plan_bundle(const std::string& bundle, const std::string& name, const HostInfo& host,
                         const oci::Spec& spec) {
  Plan plan = TRY(plan_oci(spec, bundle, nullptr, host));
  if (name.empty()) return plan;
  plan.id = name;
  plan.cgroups.mode = CgroupMode::kSoft;
  CgroupRoot root;
  root.path = TRY(oci::cgroup_directory(spec.cgroups_path, name));
  plan.cgroups.roots = {root};
  return plan;
}

}  // namespace

Result<Target> container_target(const Session& session, const std::string& id, PlanFor purpose) {
  const std::string* runtime = session.value("runtime");
  runtimes::Container container = TRY(find_container(session, runtime ? *runtime : "", id));
  Target target;
  target.title = cat(container.runtime, " container ", container.id);
  if (container.runtime == "lxc") {
    const lxc::Config config = TRY(lxc_config(container.config));
    target.host = TRY(read_host(config.rootfs_path, container.pid));
    TRY(find_cgroups(container, target.host));
    target.plan = TRY(plan_lxc(config, container.id, container.bundle, &container, target.host));
  } else {
    const oci::Spec spec = TRY(oci::read_spec(container.config));
    target.host = TRY(read_host(container.rootfs, container.pid));
    TRY(find_cgroups(container, target.host));
    target.plan = TRY(plan_oci(spec, container.bundle, &container, target.host));
  }
  TRY(settle(session, purpose, target.plan));
  return target;
}

Result<Target> bundle_target(const Session& session, const std::string& directory, const std::string& name) {
  if (!name.empty() && !runtimes::valid_id(name))
    return fail(Error(Code::kBadOption, cat(json_quote(name), " cannot be the name of a container")).about("--as"));
  const std::string bundle = TRY_CTX(real_path(directory), "bundle");
  Target target;
  const std::string description = cat(bundle, "/config.json");
  if (::access(description.c_str(), F_OK) != 0 && ::access(cat(bundle, "/config").c_str(), F_OK) == 0) {
    const lxc::Config config = TRY(lxc_config(cat(bundle, "/config")));
    const std::string own = bundle.substr(bundle.rfind('/') + 1);
    target.host = TRY(read_host(config.rootfs_path, 0));
    target.plan = TRY(plan_lxc(config, name.empty() ? own : name, bundle, nullptr, target.host));
  } else {
    const oci::Spec spec = TRY(oci::read_spec(description));
    const std::string rootfs = spec.root_path.starts_with("/") ? spec.root_path : cat(bundle, "/", spec.root_path);
    target.host = TRY(read_host(rootfs, 0));
    target.plan = TRY(plan_bundle(bundle, name, target.host, spec));
  }
  target.title = cat("bundle ", bundle);
  TRY(settle(session, PlanFor::kRestore, target.plan));
  return target;
}

Result<Target> plan_target(const Session& session, const std::string& file, bool needs_pid) {
  Target target;
  target.plan = TRY(read_plan(file));
  Plan& plan = target.plan;
  target.title = plan.id.empty() ? cat("plan ", file) : cat(plan.runtime, " container ", plan.id);
  if (needs_pid && session.request.opts.has_pid()) {
    plan.pid = session.request.opts.pid();  // of a tree that no runtime knows (any more)
  } else if (needs_pid) {
    // The pid of the file may belong to another process by now; the runtime knows.
    if (plan.id.empty() || plan.runtime.empty())
      return fail(Error(Code::kBadDescription, cat(file, ": names no running container")).about(file));
    plan.pid = TRY(find_container(session, plan.runtime, plan.id)).pid;
  }
  target.host = TRY(read_host(plan.root, 0));
  return target;
}

Result<Target> running_target(const Session& session, const std::string* id) {
  const bool by_pid = session.request.opts.has_pid(), by_plan = session.request.opts.has_stasis_plan_file();
  if ((id != nullptr) == (by_pid || by_plan))
    return fail(Code::kUsage, "name one container, or give --pid PID, --plan FILE, or both of these");
  if (id) return container_target(session, *id, PlanFor::kDump);
  if (by_plan) return plan_target(session, session.request.opts.stasis_plan_file(), true);
  Target target;
  target.plan.pid = session.request.opts.pid();
  target.host = TRY(read_host("", 0));
  target.title = cat("pid ", target.plan.pid);
  return target;
}

Result<void> set_pid(stasis::cli::Request& request, std::string_view value, bool) {
  const auto pid = parse_int<int>(value);
  if (!pid || *pid < 1) return fail(Code::kBadOption, cat(json_quote(value), " is not a process id"));
  request.opts.set_pid(*pid);
  return {};
}

Result<std::optional<ExternalEngine>> external_engine(const Session& session, const Plan& plan) {
  const std::string* given = session.value("engine");
  const std::string& name = given ? *given : plan.engine;
  if (name == kEmbedded) return std::optional<ExternalEngine>();
  if (name.empty()) return fail(Error(Code::kBadOption, "--engine names no program").about("--engine"));
  return std::optional<ExternalEngine>(TRY(ExternalEngine::find(name)));
}

}  // namespace stasis::integration::cli
