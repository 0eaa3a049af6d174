// SPDX-License-Identifier: Apache-2.0
// The manifest: filled when a checkpoint is committed, compared with the directory when one is read.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/result.h"
#include "proto/manifest.pb.h"

namespace stasis::image {

inline constexpr uint32_t kManifestVersion = 1;

struct FileSum {
  uint64_t size = 0;
  uint32_t crc32c = 0;
};
// Reads the whole file from offset 0; the descriptor's position does not matter.
Result<FileSum> sum_file(int fd, const std::string& name);

// Everything but the files and task extras: versions, machine, time.
pb::manifest_entry describe_host();

// The value of self_crc32c.
uint32_t manifest_sum(pb::manifest_entry manifest);

// Version and architecture fit, names are plain and unique, every file is as it was written.
Result<void> verify_manifest(int dirfd, const pb::manifest_entry& manifest);

}  // namespace stasis::image
