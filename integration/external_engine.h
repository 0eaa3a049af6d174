// SPDX-License-Identifier: Apache-2.0
// Drives another engine, a stock criu for example, through the RPC that container runtimes use: the same options
// message, without the fields that are ours. What only we can do is done around it, or refused by name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cgroups/hierarchy.h"
#include "engine/engine.h"
#include "integration/plan_options.h"

namespace stasis::integration {

// The directories and descriptors that a message for the engine names by number.
struct EngineRequest {
  pb::criu_opts opts;
  std::vector<int> passed;  // ours, in the order in which EngineLink numbers them
};

// Pure. `version`: major * 10000 + minor * 100 + sublevel. `options`: what `opts` was validated to.
Result<EngineRequest> engine_request(const pb::criu_opts& opts, const Options& options, PlanFor purpose, int version,
                                     const std::vector<cgroups::Hierarchy>& hierarchies);

class ExternalEngine {
 public:
  static constexpr int kOldest = 31100;  // external namespaces; what podman asks for, too

  // Asks for the version. kEngineFailed if it cannot be executed, does not answer, or is too old.
  static Result<ExternalEngine> find(const std::string& path);

  // As run_checkpoint() and run_restore() of engine/cli/operations.h. The restored root is our child, whatever
  // options.parent says: what follows is the door's job, with us as the engine.
  Result<DumpStats> checkpoint(const pb::criu_opts& opts, const Options& options,
                               const std::vector<cgroups::Hierarchy>& hierarchies, Notifier& notifier) const;
  Result<Restored> restore(const pb::criu_opts& opts, const Options& options,
                           const std::vector<cgroups::Hierarchy>& hierarchies, Notifier& notifier) const;

  int version() const { return version_; }

 private:
  ExternalEngine(std::string path, int version) : path_(std::move(path)), version_(version) {}
  Result<pb::criu_resp> request(pb::criu_req_type type, const EngineRequest& request, const Options& options,
                                Notifier& notifier) const;
  Error failure(const pb::criu_resp& response, std::string_view status, const EngineRequest& request,
                const Options& options) const;
  std::string path_;
  int version_;
};

}  // namespace stasis::integration
