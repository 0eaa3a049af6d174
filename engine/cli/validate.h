// SPDX-License-Identifier: Apache-2.0
// The one way from the options message to a checked Options value. Nothing is changed
// here: directories are opened, files looked at, and what cannot be done is refused by name.
#pragma once

#include <sys/types.h>

#include <string>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/options.h"
#include "proto/rpc.pb.h"

namespace stasis::cli {

enum class Action { kDump, kRestore };
enum class Door { kCriu, kRpc, kStasis };

struct Env {
  Action action = Action::kDump;
  Door door = Door::kCriu;
  pid_t peer = 0;  // kRpc: the client; images_dir_fd and work_dir_fd are numbers in its table
};

struct Directories {
  Fd images, work;
  std::string images_path;  // for messages
};

// Everything that can be said without looking at the file system or at descriptors: the result has no
// directories yet. Used by fuzzing and tests; validate() calls it.
Result<Options> convert(const pb::criu_opts& opts, const Env& env);

// images_dir or images_dir_fd; stasis_work_dir, work_dir_fd or else the images directory.
Result<Directories> open_directories(const pb::criu_opts& opts, const Env& env);

// The two above, and checks against the host: supervisor, action script, inherited descriptors, new root.
// Relative paths are taken from the current directory.
Result<Options> validate(const pb::criu_opts& opts, const Env& env);
Result<Options> validate(const pb::criu_opts& opts, const Env& env, Directories directories);

// "mnt[/a]:b" -> {"mnt", "/a", "b"}; text of no known form -> {"", text, ""}.
External parse_external(std::string_view text);

CgroupMode cgroup_mode_of(pb::criu_cg_mode mode);  // DEFAULT is soft, as in CRIU

// The path that execvp(3) would run; kBadSupervisor when there is none.
Result<std::string> find_executable(const std::string& command);

}  // namespace stasis::cli
