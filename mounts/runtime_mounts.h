// SPDX-License-Identifier: Apache-2.0
// The mounts that a runtime made for a container, in place of those that apply() would make: are they what the
// images had, and the files of their tmpfs.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "mounts/plan.h"
#include "mounts/table.h"

namespace stasis::mounts {

// A tmpfs of the runtime's that gets the files of an image.
struct Refill {
  int mnt_id = 0;
  std::string mountpoint;
  std::string image;
  std::set<std::string> kept;  // relative names in it of what is mounted on, or shown by another mount
};

// Every mount of the images must have one of the same type at the same place; which of them are to be filled.
Result<std::vector<Refill>> match_runtime(const RestorePlan& plan, const Table& now);

// The root directory of that tmpfs alone, writable even if the mount is read-only. Call it in its namespace.
Result<Fd> open_refill(const Refill& refill);
// What the runtime put there goes, but for what is kept; then the archive. Needs /proc at /proc.
Result<void> refill(int archive_fd, int dirfd, const Refill& refill);

}  // namespace stasis::mounts
