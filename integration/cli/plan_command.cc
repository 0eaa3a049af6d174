// SPDX-License-Identifier: Apache-2.0
// stasis plan: how a container would be given to the engine, for a person to read and edit.
#include <cstdio>

#include "engine/cli/arguments.h"
#include "integration/cli/session.h"
#include "integration/cli/target.h"
#include "integration/plan_options.h"
#include "integration/plan_yaml.h"

namespace stasis::integration::cli {
namespace {

Result<int> run(Session& session) {
  TRY(stasis::cli::take_exec_cmd(session.request, session.request.exec_cmd && session.given("bundle") ? 0 : 1));
  const std::string* bundle = session.value("bundle");
  const auto& words = session.request.words;
  if ((bundle != nullptr) + words.size() != 1) return fail(Code::kUsage, "name one container, or give --bundle DIR");
  Target target =
      TRY(bundle ? bundle_target(session, *bundle, "") : container_target(session, words[0], PlanFor::kRestore));
  TRY(absorb_options(session.opts(), PlanFor::kRestore, target.host, target.plan));
  const std::string text = session.json ? cat(to_json(target.plan), "\n") : to_yaml(target.plan);
  std::fputs(text.c_str(), stdout);
  return 0;
}

constexpr stasis::cli::OptionSpec kExtra[] = {
    kJsonOption,
    kRuntimeOption,
    kRuntimeRootOption,
    kPolicyOption,
    {'b', "bundle", stasis::cli::Arg::kRequired, false, stasis::cli::Support::kBuilt, 0, "", "DIR",
     "a directory with config.json, or LXC's config"},
};

}  // namespace

const Command& plan_command() {
  static constexpr Command kCommand{
      "plan",
      "[--runtime NAME] ID | --bundle DIR [OPTION]...",
      "print, as YAML, the translation of a container into mounts, cgroups and namespaces",
      "Nothing is changed. --manage-cgroups, --cgroup-root and --exec-cmd -- CMD go into the plan.\n"
      "Edit the text and give it to `stasis restore --plan FILE`.\n",
      0,
      kExtra,
      run,
  };
  return kCommand;
}

}  // namespace stasis::integration::cli
