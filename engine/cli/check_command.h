// SPDX-License-Identifier: Apache-2.0
// `criu check`, `criu check --feature NAME`, and the same question over RPC.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/engine.h"

namespace stasis::cli {

// Every required feature that is missing, in one error (kKernelFeature, the others in also()).
Result<void> check_required(const std::vector<KernelFeature>& features);

enum class FeatureState { kSupported, kUnsupported, kUnknown };
FeatureState feature_state(const std::vector<KernelFeature>& features, std::string_view name);
// Every name that feature_state() knows, sorted.
std::vector<std::string> feature_names(const std::vector<KernelFeature>& features);

// Prints to standard output; the exit status.
int check_command(const std::vector<KernelFeature>& features, const std::vector<std::string>& asked, bool all);

}  // namespace stasis::cli
