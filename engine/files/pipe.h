// SPDX-License-Identifier: Apache-2.0
// What is in a pipe, named or not.
#pragma once

#include "engine/files/kind.h"

namespace stasis::files {

// Contents and size of the pipe behind a descriptor, without taking anything out; what CRIU's record of it cannot say
// goes into the manifest.
Result<DumpOutput::PipeData> peek_pipe(const Candidate& candidate, uint32_t id, bool named, image::Writer& images);
// Sizes and fills an empty one. `fd` can write to it; its flags are changed.
Result<void> fill_pipe(int fd, const DumpOutput::PipeData& data);

}  // namespace stasis::files
