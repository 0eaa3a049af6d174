// SPDX-License-Identifier: Apache-2.0
// Which container a command is about, and its plan on this host.
#pragma once

#include <optional>
#include <string>

#include "engine/base/result.h"
#include "integration/cli/session.h"
#include "integration/external_engine.h"
#include "integration/plan.h"

namespace stasis::integration::cli {

struct Target {
  Plan plan;
  HostInfo host;
  std::string title;  // for messages: "runc container web", "pid 12"
};

// A running container, by --runtime, --runtime-root and its name.
Result<Target> container_target(const Session& session, const std::string& id, PlanFor purpose);
// A directory with config.json, or LXC's config; the container need not exist. `name`: what it is to be called.
Result<Target> bundle_target(const Session& session, const std::string& directory, const std::string& name);
// A plan file. `needs_pid`: the container it names must still run, and be the same.
Result<Target> plan_target(const Session& session, const std::string& file, bool needs_pid);
// What to checkpoint: a name, --plan FILE or --pid N.
Result<Target> running_target(const Session& session, const std::string* id);

Result<void> set_pid(stasis::cli::Request& request, std::string_view value, bool on);

inline constexpr stasis::cli::OptionSpec kRuntimeOption{
    0,
    "runtime",
    stasis::cli::Arg::kRequired,
    false,
    stasis::cli::Support::kBuilt,
    0,
    "",
    "NAME",
    "whose container it is: runc, crun, podman or lxc (all are asked)"};
inline constexpr stasis::cli::OptionSpec kRuntimeRootOption{0,
                                                            "runtime-root",
                                                            stasis::cli::Arg::kRequired,
                                                            false,
                                                            stasis::cli::Support::kBuilt,
                                                            0,
                                                            "",
                                                            "DIR",
                                                            "where it keeps its records (runc --root, lxc-start -P)"};
inline constexpr stasis::cli::OptionSpec kPolicyOption{0,
                                                       "config",
                                                       stasis::cli::Arg::kRequired,
                                                       false,
                                                       stasis::cli::Support::kBuilt,
                                                       0,
                                                       "",
                                                       "FILE",
                                                       "policies for every container (/etc/stasis/stasis.yaml)"};
inline constexpr stasis::cli::OptionSpec kPidOption{'p',
                                                    "pid",
                                                    stasis::cli::Arg::kRequired,
                                                    false,
                                                    stasis::cli::Support::kBuilt,
                                                    0,
                                                    "pid",
                                                    "PID",
                                                    "root of a process tree, instead of a container",
                                                    set_pid};
inline constexpr stasis::cli::OptionSpec kEngineOption{
    0,
    "engine",
    stasis::cli::Arg::kRequired,
    false,
    stasis::cli::Support::kBuilt,
    0,
    "",
    "PATH",
    "drive this engine, a stock criu for example, instead of our own"};

// The engine of the command line or else of the plan; nothing: our own.
Result<std::optional<ExternalEngine>> external_engine(const Session& session, const Plan& plan);

}  // namespace stasis::integration::cli
