// SPDX-License-Identifier: Apache-2.0
#include "engine/files/external_file.h"

namespace stasis::files {

std::optional<std::string> external_name(const Candidate& c, const Options& options) {
  if (c.fd < 0) return std::nullopt;
  std::optional<std::string> name;
  const std::string key = cat(hex(static_cast<uint64_t>(c.info.mnt_id)).substr(2), ":", hex(c.st.st_ino).substr(2));
  for (const auto& e : options.externals)  // later entries win
    if (e.kind == "file" && e.key == key) name = e.value.empty() ? cat("file[", key, "]") : e.value;
  return name;
}

Result<void> check_external_files(const FileEntries& files, const Options& options) {
  for (const auto& [id, file] : files) {
    if (!file.has_reg() || !file.reg().ext() || inherited_fd(options, file.reg().name()) >= 0) continue;
    const auto& name = file.reg().name();
    return fail(Error(Code::kBadOption, cat("the file \"", name,
                                            "\" of the images is external; give it with "
                                            "--inherit-fd fd[N]:",
                                            name))
                    .about(name));
  }
  return {};
}

}  // namespace stasis::files
