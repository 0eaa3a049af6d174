// SPDX-License-Identifier: Apache-2.0
// Hands the master of a container's terminal to whoever listens on a console socket,
// in the way of runc's --console-socket: one byte of text or more with SCM_RIGHTS, unix(7).
#pragma once

#include <string>

#include "engine/base/result.h"

namespace stasis::integration::cli {

Result<void> send_console(const std::string& socket_path, int master);

}  // namespace stasis::integration::cli
