// SPDX-License-Identifier: Apache-2.0
#include "integration/cli/target.h"

#include <climits>
#include <cstdlib>
#include <memory>

#include "integration/host.h"
#include "integration/oci/spec.h"
#include "integration/plan_yaml.h"
#include "integration/runtimes/container.h"

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

}  // namespace

Result<Target> container_target(const Session& session, const std::string& id) {
  const std::string* runtime = session.value("runtime");
  const runtimes::Container container = TRY(find_container(session, runtime ? *runtime : "runc", id));
  if (container.bundle.empty())
    return fail(Error(Code::kBadDescription, cat("the record of container ", id, " names no bundle"))
                    .about(container.state_dir));
  const oci::Spec spec = TRY(oci::read_spec(cat(container.bundle, "/config.json")));
  Target target;
  target.host = TRY(read_host(container.rootfs, container.pid));
  target.plan = TRY(plan_oci(spec, container.bundle, &container, target.host));
  target.title = cat(container.runtime, " container ", id);
  return target;
}

Result<Target> bundle_target(const std::string& directory) {
  const std::string bundle = TRY_CTX(real_path(directory), "bundle");
  const oci::Spec spec = TRY(oci::read_spec(cat(bundle, "/config.json")));
  Target target;
  const std::string rootfs = spec.root_path.starts_with("/") ? spec.root_path : cat(bundle, "/", spec.root_path);
  target.host = TRY(read_host(rootfs, 0));
  target.plan = TRY(plan_oci(spec, bundle, nullptr, target.host));
  target.title = cat("bundle ", bundle);
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
  if (id) return container_target(session, *id);
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
  if (name == "embedded") return std::optional<ExternalEngine>();
  if (name.empty()) return fail(Error(Code::kBadOption, "--engine names no program").about("--engine"));
  return std::optional<ExternalEngine>(TRY(ExternalEngine::find(name)));
}

}  // namespace stasis::integration::cli
