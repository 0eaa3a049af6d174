// SPDX-License-Identifier: Apache-2.0
// What the files of terminals share: tty.cc is their dump, tty_restore.cc their restore, tty_data.cc what was typed or
// said and nobody has read yet.
#pragma once

#include <asm/termbits.h>

#include <string>

#include "engine/files/kind.h"

namespace stasis::files {

constexpr uint32_t kPtmx = 5u << 20 | 2;  // device number of a master, as tty_info_entry.rdev has it

inline bool is_master(const pb::tty_info_entry& info) {
  return info.type() == pb::PTY && info.rdev() == kPtmx && info.has_pty();
}
// A slave whose master was closed.
inline bool is_hung_up(const pb::tty_info_entry& info) {
  return info.type() == pb::PTY && info.rdev() != kPtmx && !info.has_termios();
}

// Reads all that a slave has not read and puts it back. `slave`: any descriptor of it.
Result<std::string> peek_input(int slave, const std::string& name);
// Puts it there as if it had been typed, but without its effects.
Result<void> put_input(int slave, int master, const std::string& data, const std::string& name);
// The same for what a master has not read.
Result<std::string> peek_output(int master, const std::string& name);
Result<void> put_output(int slave, const std::string& data, const std::string& name);

// For kTty: tty_restore.cc
Result<Fd> restore_tty(const pb::file_entry& entry, RestoreEnv& env);
Result<void> connect_ttys(RestoreEnv& env);
Result<void> check_tty_image(const pb::file_entry& entry, const FileEntries&, const image::Reader&);

}  // namespace stasis::files
