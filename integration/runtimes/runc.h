// SPDX-License-Identifier: Apache-2.0
// runc's record of a container: ROOT/ID/state.json, libcontainer's State as JSON.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "integration/runtimes/container.h"

namespace stasis::integration::runtimes::runc {

// Pure: the text to the record. `file` names it in errors.
Result<Container> parse_state(std::string_view json, const std::string& file);
// Where runc 1.1 keeps its records when no --root is given; the first is the likeliest.
std::vector<std::string> default_roots(uid_t euid, const char* xdg_runtime_dir);
// Container ids come from the command line and become part of a path.
bool valid_id(std::string_view id);
Result<Container> find(const std::string& id, const FindOptions& options);

}  // namespace stasis::integration::runtimes::runc
