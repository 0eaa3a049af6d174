// SPDX-License-Identifier: Apache-2.0
// Checkpoint and restore as every door runs them: with script, pidfile and statistics around the engine.
#pragma once

#include <functional>
#include <vector>

#include "engine/cli/validate.h"
#include "engine/engine.h"

namespace stasis::cli {

// What a door calls; tests put something else here.
struct Engine {
  std::function<Result<DumpStats>(const Options&, Notifier&)> checkpoint;
  std::function<Result<Restored>(const Options&, Notifier&)> restore;
  std::function<std::vector<KernelFeature>()> features;
  // How a door runs all of a checkpoint, its answer included (process.h); returns the exit status.
  std::function<int(const std::function<int()>&)> isolate = [](const std::function<int()>& work) { return work(); };
};
Engine real_engine();

// `client` (or null) hears of the phases after the action script. Statistics go to the work directory.
Result<DumpStats> run_checkpoint(const Engine& engine, const Options& options, Notifier* client = nullptr);
Result<Restored> run_restore(const Engine& engine, const Options& options, Notifier* client = nullptr);

// Text for --display-stats.
std::string describe(const DumpStats& stats);
std::string describe(const RestoreStats& stats);

// A command line: log_file, or standard output for "-", or standard error. RPC: log_file or criu.log in the
// work directory. Makes it the log; the descriptor must outlive its use.
Result<Fd> open_log(const pb::criu_opts& opts, const Env& env, const Directories& dirs);

}  // namespace stasis::cli
