// SPDX-License-Identifier: Apache-2.0
// Containers that come up restored by hooks in their own description (runtime-spec config.md, "POSIX-platform Hooks"):
// `precreate` makes that description, the runtime runs the hooks in it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "engine/procfs/procfs.h"
#include "integration/config/node.h"
#include "integration/into/runtime.h"
#include "integration/into/scaffold.h"

namespace stasis::integration::into {

inline constexpr std::string_view kHookCommand = "oci-restore";  // of our own command line
inline constexpr std::string_view kEachStart = "each-start";     // its option

// Annotations of the description.
inline constexpr std::string_view kImagesKey = "io.stasis.restore";
inline constexpr std::string_view kWorkKey = "io.stasis.restore.work";
inline constexpr std::string_view kReportKey = "io.stasis.restore.report";
inline constexpr std::string_view kOriginalKey = "io.stasis.restore.original";  // ours: what `precreate` was given

struct Wishes {
  std::string images;
  std::string work;    // for restore.log and statistics; empty: the same directory
  std::string report;  // a named pipe that is told how it ended; empty: none
};
// Every one is an absolute path.
Result<Wishes> wishes_of(const config::Node& config);

// Pure. `self`: this program, for the hooks; `each_start`: the bundle is written anew for each start of the container.
Result<config::Node> hooked_config(const config::Node& config, const Program& program, const std::string& self,
                                   uint64_t capabilities, bool each_start);
// What hooked_config() was given.
Result<config::Node> original_of(const config::Node& hooked, const std::string& file);

// What a hook gets on standard input (runtime-spec runtime.md, "State").
struct HookState {
  std::string id, bundle;
  pid_t pid = 0;
};
Result<HookState> parse_state(std::string_view json);

struct Record {
  const Runtime* runtime = nullptr;
  std::string root;  // where the runtime keeps its records
  std::string dir;   // of this container
};
// The record of that container and process. `caller`, who runs the hook, says by its options where to look.
Result<Record> find_record(const procfs::Procfs& proc, pid_t caller, const HookState& state);

}  // namespace stasis::integration::into
