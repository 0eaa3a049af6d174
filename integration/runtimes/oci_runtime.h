// SPDX-License-Identifier: Apache-2.0
// OCI runtimes keep one directory per container, ROOT/ID, with a JSON record in it. Where a record says
// what is data: a further runtime is a further row of the table.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "integration/runtimes/container.h"

namespace stasis::integration::runtimes {

struct OciRuntime {
  std::string_view name;    // also that of its directory below /run
  std::string_view record;  // file in ROOT/ID
  std::string_view config;  // a copy of config.json beside the record; "": only in the bundle
  // Places in the record: keys joined by dots, "[prefix]" picks from a list of strings. "": it does not say.
  std::string_view id, pid, start_time, bundle, rootfs, stdio, cgroup_path, cgroup_dirs, namespace_paths;
};
std::span<const OciRuntime> oci_runtimes();

// Pure: the text of a record. `file` names it in errors.
Result<Container> parse_record(const OciRuntime& runtime, std::string_view json, const std::string& file);
// Where the runtime keeps its records by itself.
std::vector<std::string> roots_of(const OciRuntime& runtime, const FindOptions& options);
// Nothing when no record has this id.
Result<std::optional<Container>> find_oci(const OciRuntime& runtime, const std::string& id, const FindOptions& options);

}  // namespace stasis::integration::runtimes
