// SPDX-License-Identifier: Apache-2.0
// linux.cgroupsPath of config.json: a path, or in the words of systemd "slice:prefix:name".
#pragma once

#include <string>
#include <string_view>

#include "engine/base/result.h"

namespace stasis::integration::oci {

// The directory below the root of a hierarchy: "/a/b"; "a-b.slice:runc:web" is
// "/a.slice/a-b.slice/runc-web.scope". A relative path starts at the root. An empty one is "/ID" (or "").
Result<std::string> cgroup_directory(std::string_view cgroups_path, std::string_view id);

}  // namespace stasis::integration::oci
