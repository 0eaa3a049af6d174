// SPDX-License-Identifier: Apache-2.0
// Runtimes that make a container for the engine: how they are called, and their records, which are given the
// original description back.
#pragma once

#include <sys/types.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "integration/config/node.h"
#include "integration/oci/spec.h"

namespace stasis::integration::into {

struct Runtime {
  std::string_view name;
  std::string_view record;     // file in ROOT/ID that every container has
  std::string_view pid_field;  // of that
  bool keeps_description;      // a copy of config.json is in ROOT/ID
  // The filter as the runtime has translated it, from the record of one container to that of another.
  Result<void> (*copy_seccomp)(const std::string& from_dir, const std::string& to_dir);
  // Makes ROOT/ID forget that the container was made from `staged`.
  Result<void> (*restore_record)(const std::string& state_dir, const std::string& staged, const std::string& bundle,
                                 const std::string& original_text);
};
std::span<const Runtime> all_runtimes();
// kUnsupported for one that is not in the table, with the reason where there is one.
Result<const Runtime*> find_runtime(std::string_view name);

// The record of a container whose own bundle is not what `exec` may use: from now on it is described by `original`,
// which is written to the bundle too, or if it must stay as it is, beside the record where the runtime needs it.
Result<void> give_back(const Runtime& runtime, const std::string& state_dir, const std::string& bundle,
                       const config::Node& original, bool write_bundle);

// Where the runtime keeps its records.
std::string runtime_root(const Runtime& runtime, const char* xdg_runtime_dir);

// Runs it to its end; what it wrote to its log goes into the error. It dies with us.
// `root`: where it keeps its records.
Result<void> call(const Runtime& runtime, const std::string& root, const std::string& log,
                  const std::vector<std::string>& words);

Result<pid_t> recorded_pid(const Runtime& runtime, const std::string& state_dir);

}  // namespace stasis::integration::into
