// SPDX-License-Identifier: Apache-2.0
#include "integration/oci/cgroups_path.h"

#include "cgroups/path.h"

namespace stasis::integration::oci {
namespace {

Error bad(std::string_view path, std::string_view what) {
  return Error(Code::kBadDescription, cat("linux.cgroupsPath ", json_quote(path), ": ", what)).about("cgroupsPath");
}

// systemd.slice(5): the dashes of a slice's name say which slices it is in.
Result<std::string> slice_directory(std::string_view slice, std::string_view whole) {
  if (slice == "-.slice") return std::string();
  if (!slice.ends_with(".slice") || slice.find('/') != std::string_view::npos)
    return fail(bad(whole, cat(json_quote(slice), " is not a slice")));
  const std::string_view stem = slice.substr(0, slice.size() - 6);
  std::string out, prefix;
  for (std::string_view part : split(stem, '-')) {
    if (part.empty()) return fail(bad(whole, cat(json_quote(slice), " is not a slice")));
    prefix += cat(prefix.empty() ? "" : "-", part);
    out += cat("/", prefix, ".slice");
  }
  return out;
}

}  // namespace

Result<std::string> cgroup_directory(std::string_view cgroups_path, std::string_view id) {
  if (cgroups_path.empty()) return id.empty() ? std::string() : cat("/", id);
  const auto parts = split(cgroups_path, ':');
  if (parts.size() == 3 && cgroups_path.find('/') == std::string_view::npos) {
    const std::string_view slice = parts[0].empty() ? "system.slice" : parts[0];
    const std::string_view name = parts[2].empty() ? id : parts[2];
    if (name.empty()) return fail(bad(cgroups_path, "no name after the last colon"));
    const std::string directory = TRY(slice_directory(slice, cgroups_path));
    if (name.ends_with(".slice")) return cat(directory, "/", name);
    return cat(directory, "/", parts[1], parts[1].empty() ? "" : "-", name, ".scope");
  }
  auto path = cgroups::normalise(cat("/", cgroups_path), Code::kBadDescription);
  if (!path) return fail(bad(cgroups_path, path.error().message()));
  return path;
}

}  // namespace stasis::integration::oci
