// SPDX-License-Identifier: Apache-2.0
// stasis restore --into podman: `podman run` with the hooks of stasis oci-restore.
#pragma once

#include "engine/base/result.h"
#include "integration/cli/session.h"

namespace stasis::integration::cli {

Result<int> restore_into_podman(Session& session);

}  // namespace stasis::integration::cli
