// SPDX-License-Identifier: Apache-2.0
// What a container needs so that its first process can be ours: the program with its loader and libraries, bound into
// a tmpfs in the container's /dev (nothing of it touches the rootfs, nor this host), and a config.json that runs it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "integration/config/node.h"
#include "integration/oci/spec.h"

namespace stasis::integration::into {

inline constexpr char kScaffold[] = "/dev/.stasis";
inline constexpr char kSocket[] = "socket";                    // in the scaffold
inline constexpr char kWaitCommand[] = "wait-to-become-root";  // of our own command line

// A file of this host that the program consists of, and its name in the scaffold.
struct Part {
  std::string source, name;
};
struct Program {
  std::string loader;  // names in the scaffold
  std::string binary;
  std::vector<Part> parts;
};
// This very program, as it is loaded now.
Result<Program> own_program();

// Descriptions that would not come back as they were, or into which the scaffold does not fit.
Result<void> check_description(const config::Node& config, const oci::Spec& spec);
// The same, and its root directory.
Result<void> check_bundle(const config::Node& config, const oci::Spec& spec, const std::string& bundle);

// CLONE_NEW* of the namespaces that the description takes from elsewhere.
unsigned long joined_namespaces(const oci::Spec& spec);

// Relative paths start at the bundle; for a description that is to be used elsewhere.
config::Node absolute_paths(const config::Node& config, const std::string& bundle);
// Pure. With `bundle` empty relative paths stay so; `capabilities` is a mask as in /proc/PID/status.
config::Node waiting_config(const config::Node& config, const std::string& bundle, const Program& program,
                            uint64_t capabilities);
// The same with the filter and without hooks, in a control group of its own: nothing of it is ever started, but the
// runtime translates the filter for its record.
config::Node filter_config(const config::Node& config, const config::Node& waiting, const std::string& cgroup);
// "CAP_CHOWN", ... for the bits that have a name.
std::vector<std::string> capability_names(uint64_t mask);

}  // namespace stasis::integration::into
