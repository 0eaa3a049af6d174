// SPDX-License-Identifier: Apache-2.0
// What unmodified LXC needs besides CRIU's command line.
#pragma once

#include "engine/options.h"

namespace stasis::cli {

// Before a dump LXC writes the name of the console to IMAGES/tty.info, and refuses by itself to restore when it
// stands there and LXC has no console to give. With lxc.pty.max (Debian's default) it never has one, since the
// console is then made in the container's own devpts: the file is emptied, and the restore makes the console.
// A console of the host's devpts stays named.
void settle_tty_info(const Options& options);

}  // namespace stasis::cli
