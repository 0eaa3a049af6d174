// SPDX-License-Identifier: Apache-2.0
// stasis check: the kernel's features, and every obstacle of a container, without stopping anything.
#include "engine/cli/check_command.h"

#include <cstdio>

#include "engine/cli/validate.h"
#include "engine/engine.h"
#include "integration/cli/session.h"
#include "integration/cli/target.h"
#include "integration/plan_options.h"

namespace stasis::integration::cli {
namespace {

using stasis::cli::Action;
using stasis::cli::Door;
using stasis::cli::Env;

Result<int> report_one(const Session& session, const std::string& name) {
  using stasis::cli::FeatureState;
  const FeatureState state = stasis::cli::feature_state(kernel_features(), name);
  if (state == FeatureState::kUnknown)
    return fail(
        Error(Code::kBadOption, cat("unknown feature ", json_quote(name), "; `stasis check` lists them")).about(name));
  const bool present = state == FeatureState::kSupported;
  if (session.json)
    std::printf("{\"feature\":%s,\"present\":%s}\n", json_quote(name).c_str(), present ? "true" : "false");
  else
    std::printf("%s is %s\n", name.c_str(), present ? "supported" : "not supported");
  return present ? 0 : 1;
}

Result<std::vector<Error>> obstacles_of(Session& session) {
  const std::string* name = session.value("container");
  if (!name && !session.request.words.empty()) name = &session.request.words[0];
  Target target = TRY(running_target(session, name));
  TRY(absorb_options(session.opts(), PlanFor::kDump, target.host, target.plan));
  const std::vector<Fd> held = TRY(plan_to_options(target.plan, PlanFor::kDump, target.host, session.opts()));
  const Options options = TRY(stasis::cli::convert(session.opts(), Env{Action::kDump, Door::kStasis, 0}));
  return find_obstacles(options);
}

void print_json(const std::vector<KernelFeature>& features, const std::vector<Error>* obstacles, bool good) {
  std::vector<std::string> listed, found;
  for (const KernelFeature& feature : features)
    listed.push_back(cat("{\"name\":", json_quote(feature.name), ",\"what\":", json_quote(feature.what),
                         ",\"required\":", feature.required ? "true" : "false",
                         ",\"present\":", feature.present ? "true" : "false", "}"));
  if (obstacles)
    for (const Error& error : *obstacles) found.push_back(error.json());
  std::printf("{\"good\":%s,\"features\":[%s]", good ? "true" : "false", join(listed, ",").c_str());
  if (obstacles) std::printf(",\"obstacles\":[%s]", join(found, ",").c_str());
  std::printf("}\n");
}

void print_text(const std::vector<KernelFeature>& features, const std::vector<Error>* obstacles, bool good) {
  for (const KernelFeature& feature : features)
    std::printf("%-8s %-24s %s%s\n",
                feature.present    ? "yes"
                : feature.required ? "MISSING"
                                   : "no",
                feature.name.c_str(), feature.what.c_str(), feature.required ? " (required)" : "");
  if (obstacles && !obstacles->empty()) {
    std::printf("\n%zu obstacle%s:\n", obstacles->size(), obstacles->size() == 1 ? "" : "s");
    for (const Error& error : *obstacles) std::printf("%s", error.pretty().c_str());
  }
  std::printf("%s\n", good ? "Looks good." : "Not possible as it is.");
}

Result<int> run(Session& session) {
  TRY(at_most_words(session, 1));
  if (session.request.features.size() == 1 && session.request.features[0] != "list")
    return report_one(session, session.request.features[0]);
  const std::vector<KernelFeature> features = kernel_features();
  bool good = true;
  for (const KernelFeature& feature : features) good = good && (feature.present || !feature.required);
  const bool about_one = session.given("container") || !session.request.words.empty() || session.opts().has_pid() ||
                         session.opts().has_stasis_plan_file();
  std::vector<Error> obstacles;
  if (about_one) obstacles = TRY(obstacles_of(session));
  good = good && obstacles.empty();
  const std::vector<Error>* shown = about_one ? &obstacles : nullptr;
  session.json ? print_json(features, shown, good) : print_text(features, shown, good);
  return good ? 0 : 1;
}

constexpr stasis::cli::OptionSpec kExtra[] = {
    kJsonOption,
    kRuntimeOption,
    kRuntimeRootOption,
    kPolicyOption,
    kPidOption,
    {0, "container", stasis::cli::Arg::kRequired, false, stasis::cli::Support::kBuilt, 0, "", "ID",
     "the container to look at"},
};

}  // namespace

const Command& check_command() {
  static constexpr Command kCommand{
      "check",
      "[[--container] ID | --pid PID | --plan FILE] [--feature NAME] [OPTION]...",
      "list what this kernel lacks and everything that stands in the way of a checkpoint",
      "Nothing is stopped or changed. The status is 0 when a checkpoint would be possible. Give the\n"
      "options that the checkpoint would be given: some of them remove obstacles.\n",
      stasis::cli::kCheck | stasis::cli::kDump,
      kExtra,
      run,
  };
  return kCommand;
}

}  // namespace stasis::integration::cli
