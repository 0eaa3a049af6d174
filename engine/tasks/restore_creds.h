// SPDX-License-Identifier: Apache-2.0
// Credentials, capabilities(7) and securebits of one thread, in the order that works: ids are
// changed while keeping capabilities, the bounding set is lowered, then the sets are set.
#pragma once

#include "engine/base/result.h"
#include "engine/remote/batch.h"
#include "proto/manifest.pb.h"
#include "proto/task.pb.h"

namespace stasis::tasks {

// `setgroups`: false where it is denied; the groups are there then.
Result<void> add_creds(remote::Batch& batch, const pb::creds_entry& creds, const pb::task_extra* extra, bool setgroups);
// The ids are those of the engine already, the images were checked for it: only its capabilities have to go.
void drop_capabilities(remote::Batch& batch);

}  // namespace stasis::tasks
