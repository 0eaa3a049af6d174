// SPDX-License-Identifier: Apache-2.0
// stats-dump and stats-restore in the work directory, as go-criu and `crit show` read them.
#pragma once

#include "engine/base/result.h"
#include "proto/stats.pb.h"

namespace stasis::image {

// Replaces the file. Required fields not set are written as 0.
Result<void> write_dump_stats(int work_dirfd, pb::dump_stats_entry stats);
Result<void> write_restore_stats(int work_dirfd, pb::restore_stats_entry stats);
// As another engine may have written it.
Result<pb::stats_entry> read_stats(int work_dirfd, const std::string& name);

}  // namespace stasis::image
