// SPDX-License-Identifier: Apache-2.0
// What each key of an LXC configuration means: one table.
#pragma once

#include "engine/base/result.h"
#include "integration/lxc/config.h"

namespace stasis::integration::lxc {

// Sets the member that the entry's key is about. A key that no table knows goes to `unknown`.
Result<void> apply_entry(const Entry& entry, Config& config);
Error bad_entry(const From& from, std::string_view text);

}  // namespace stasis::integration::lxc
