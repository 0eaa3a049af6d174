// SPDX-License-Identifier: Apache-2.0
// stasis restore
#include <unistd.h>

#include <cstdio>
#include <optional>

#include "engine/cli/arguments.h"
#include "engine/cli/operations.h"
#include "engine/cli/process.h"
#include "integration/cli/console.h"
#include "integration/cli/into_podman.h"
#include "integration/cli/private_root.h"
#include "integration/cli/progress.h"
#include "integration/cli/restore_steps.h"
#include "integration/cli/session.h"
#include "integration/cli/target.h"
#include "integration/host.h"
#include "integration/into/launch.h"

namespace stasis::integration::cli {
namespace {

using stasis::cli::Action;
using stasis::cli::Door;
using stasis::cli::Env;

// What to restore into: a bundle, a plan file, a bare root directory, or nothing but the images.
Result<Target> find_target(const Session& session) {
  const pb::criu_opts& opts = session.request.opts;
  const std::string* bundle = session.value("bundle");
  if (bundle && opts.has_stasis_plan_file()) return fail(Code::kUsage, "give --bundle or --plan, not both");
  const std::string* name = session.value("as");
  if (opts.has_stasis_plan_file() && !name) return plan_target(session, opts.stasis_plan_file(), false);
  if (name && !bundle) return fail(Code::kUsage, "--as needs --bundle, which says what the container is");
  // With --into the cgroups are the runtime's choice, and the name is for the runtime.
  if (bundle) return bundle_target(session, *bundle, name && !session.given("into") ? *name : "");
  Target target;
  target.host = TRY(read_host(opts.root(), 0));
  return target;
}

Result<void> hand_over_terminal(const Session& session, int master) {
  const std::string* socket = session.value("console-socket");
  if (!socket)
    return fail(
        Error(Code::kBadOption, "the container has a terminal and nobody to show it; give --console-socket PATH")
            .about("terminal"));
  return send_console(*socket, master);
}

void report(const Session& session, const std::string& id, const Options& options, const Restored& restored,
            uint64_t total_us) {
  if (session.json) {
    std::printf(
        "{\"id\":%s,\"pid\":%d,\"images_dir\":%s,\"total_us\":%llu,\"forking_us\":%u,\"restore_us\":%u,\"pages_"
        "restored\":%llu}"
        "\n",
        json_quote(id).c_str(), static_cast<int>(restored.root_pid), json_quote(options.images_path).c_str(),
        static_cast<unsigned long long>(total_us), restored.stats.forking_us, restored.stats.restore_us,
        static_cast<unsigned long long>(restored.stats.pages_restored));
  } else {
    std::printf("restored from %s%s%s: pid %d, %s, %llu pages\n", options.images_path.c_str(), id.empty() ? "" : " as ",
                id.c_str(), static_cast<int>(restored.root_pid), duration_text(total_us).c_str(),
                static_cast<unsigned long long>(restored.stats.pages_restored));
  }
  std::fflush(stdout);
}

// --into RUNTIME --as NAME: the container is made by the runtime. Everything about its surroundings is the bundle's.
Result<std::optional<into::Launch>> plan_launch(const Session& session, Target& target) {
  const std::string *runtime = session.value("into"), *name = session.value("as");
  std::optional<into::Launch> launch;
  if (!runtime) return launch;
  const pb::criu_opts& opts = session.request.opts;
  const into::Runtime* known = TRY(into::find_runtime(*runtime));
  if (!name || !session.given("bundle"))
    return fail(Code::kUsage, cat("--into ", *runtime, " needs --bundle DIR and --as NAME"));
  for (const auto& [given, option] : {std::pair{opts.has_root(), "--root"},
                                      {opts.exec_cmd_size() > 0 || session.request.exec_cmd, "--exec-cmd"},
                                      {opts.cg_root_size() > 0, "--cgroup-root"},
                                      {opts.has_manage_cgroups() || opts.has_manage_cgroups_mode(), "--manage-cgroups"},
                                      {opts.rst_sibling(), "--restore-sibling"},
                                      {opts.shell_job(), "--shell-job"},
                                      {session.given("console-socket"), "--console-socket"},
                                      {opts.join_ns_size() > 0, "--join-ns"}})
    if (given)
      return fail(
          Error(Code::kUsage, cat(option, " cannot be used together with --into: the runtime makes the container"))
              .about(option));
  launch.emplace(TRY(into::Launch::plan(*known, *name, target.plan.bundle, !opts.stasis_restore_detached())));
  leave_to_runtime(*name, target.plan);
  return launch;
}

Result<int> follow(const Options& options, const Restored& restored) {
  switch (options.parent) {
    case RestoreParent::kExecCmd: return fail(stasis::cli::become(options.exec_cmd));
    case RestoreParent::kWait: return stasis::cli::wait_for_root(restored.root_pid);
    case RestoreParent::kDetached:
    case RestoreParent::kSibling: break;
  }
  return 0;
}

Result<int> run(Session& session) {
  if (const std::string* runtime = session.value("into"); runtime && *runtime == "podman")
    return restore_into_podman(session);
  TRY(stasis::cli::take_exec_cmd(session.request, 0));
  pb::criu_opts& opts = session.opts();
  if (opts.images_dir().empty()) return fail(Code::kUsage, "say where the images are: --images-dir DIR");
  const Env env{Action::kRestore, Door::kStasis, 0};
  stasis::cli::Directories directories = TRY(stasis::cli::open_directories(opts, env));
  Target target = TRY(find_target(session));
  std::optional<into::Launch> launch = TRY(plan_launch(session, target));
  const std::vector<Fd> held = TRY(plan_restore(session, target));
  const auto engine = TRY(external_engine(session, target.plan));
  if (engine && launch) return fail(Error(Code::kUsage, "--into needs our own engine").about("--engine"));
  session.log = TRY(stasis::cli::open_log(opts, env, directories));
  Options options = TRY(stasis::cli::validate(opts, env, std::move(directories)));

  std::optional<PrivateRoot> root;
  if (launch)
    options.into = TRY(launch->start());
  else if (!options.root.empty())
    root = TRY(PrivateRoot::make(options.root));
  Progress progress(cat("restore from ", options.images_path), session.json, nullptr);
  progress.on("orphan-pts-master", [&](pid_t, int fd) { return hand_over_terminal(session, fd); });
  const Restored restored = TRY(engine ? engine->restore(opts, options, target.host.hierarchies, progress)
                                       : stasis::cli::run_restore(stasis::cli::real_engine(), options, &progress));
  progress.clear();
  if (root) TRY(root->leave());
  if (launch) launch->commit();
  report(session, target.plan.id, options, restored, progress.elapsed_us());
  const int status = TRY(follow(options, restored));
  if (launch && options.parent == RestoreParent::kWait) TRY(launch->forget());
  return status;
}

Result<void> set_detach(stasis::cli::Request& request, std::string_view, bool on) {
  request.opts.set_stasis_restore_detached(on);
  return {};
}

constexpr stasis::cli::OptionSpec kExtra[] = {
    kJsonOption,
    kEngineOption,
    {'b', "bundle", stasis::cli::Arg::kRequired, false, stasis::cli::Support::kBuilt, 0, "", "DIR",
     "a directory with config.json and the rootfs, or LXC's config"},
    {0, "as", stasis::cli::Arg::kRequired, false, stasis::cli::Support::kBuilt, 0, "", "NAME",
     "a new name, and with it cgroups of its own; with --into, the name that runtime gives it"},
    kPolicyOption,
    {0, "detach", stasis::cli::Arg::kNone, false, stasis::cli::Support::kBuilt, 0, "stasis_restore_detached", "",
     "exit once the tasks run (as --restore-detached)", set_detach},
    {0, "into", stasis::cli::Arg::kRequired, false, stasis::cli::Support::kBuilt, 0, "", "RUNTIME",
     "have crun, runc or podman make the container, and restore into it"},
    {0, "console-socket", stasis::cli::Arg::kRequired, false, stasis::cli::Support::kBuilt, 0, "", "PATH",
     "hand the container's terminal to this socket"},
};

}  // namespace

const Command& restore_command() {
  static constexpr Command kCommand{
      "restore",
      "--images-dir DIR [--bundle DIR [[--into RUNTIME] --as NAME] | --plan FILE | --root DIR] [OPTION]...\n"
      "                      [--exec-cmd -- CMD ARG... | -- WORDS OF podman run...]",
      "bring a checkpoint back to life",
      "--bundle takes rootfs, external mounts and namespaces from a config.json, --plan from a file that\n"
      "`stasis plan` printed. Without --detach the command waits for the container and ends with its\n"
      "status; with --exec-cmd it becomes CMD, the parent of the container. --cgroup-root moves it:\n"
      "  stasis restore -D DIR --bundle B --cgroup-root /n --cgroup-root cpuacct,cpu:/s --detach\n"
      "--as NAME brings it back as another container: its cgroups are those of the bundle's linux.cgroupsPath\n"
      "or /NAME. Otherwise cgroups are left alone unless --cgroup-root or --manage-cgroups asks for them. The\n"
      "runtime does not know of a container restored here, unless it makes it itself:\n"
      "  stasis restore -D DIR --into crun --as NAME --bundle B --detach\n"
      "  stasis restore -D DIR --into podman --as NAME --detach -- --network none IMAGE COMMAND...\n",
      stasis::cli::kRestore,
      kExtra,
      run,
  };
  return kCommand;
}

}  // namespace stasis::integration::cli
