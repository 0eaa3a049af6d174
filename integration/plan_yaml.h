// SPDX-License-Identifier: Apache-2.0
// A plan as YAML text: what `stasis plan` prints and `restore --plan` takes.
// Reading is strict: an unknown key is a mistake of the editor, and is named with its line.
#pragma once

#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "integration/plan.h"

namespace stasis::integration {

std::string to_yaml(const Plan& plan);
Result<Plan> from_yaml(std::string_view text, const std::string& file);
Result<Plan> read_plan(const std::string& path);
// The same content as one JSON object, for --json.
std::string to_json(const Plan& plan);

}  // namespace stasis::integration
