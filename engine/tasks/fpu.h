// SPDX-License-Identifier: Apache-2.0
// Extended processor state: NT_X86_XSTATE (Intel SDM vol. 1 ch. 13, standard format) to and
// from the image's fields. Components that the image has no field for (AMX) travel only in
// the manifest's raw copy.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/base/result.h"
#include "proto/arch_x86.pb.h"

namespace stasis::tasks {

Result<void> dump_xstate(const std::vector<uint8_t>& xstate, pb::user_x86_fpregs_entry& out);

// Rewrites `xstate` (the current state of the thread, which gives length and layout) with the
// image's. A component that the image uses and this CPU lacks is an error (kImageArch).
Result<void> fill_xstate(const pb::user_x86_fpregs_entry& in, std::vector<uint8_t>& xstate);

// Memory protection keys, pkeys(7): whether there are any here, and what a thread may do with each: its PKRU register.
bool has_protection_keys();
std::optional<uint32_t> key_rights(const std::vector<uint8_t>& xstate);
// The kernel keeps PKRU apart and may leave the bit out that says that it is in use.
void mark_key_rights(std::vector<uint8_t>& xstate);

}  // namespace stasis::tasks
