// SPDX-License-Identifier: Apache-2.0
// stasis recover: removes what checkpoints have left in this network namespace to be found by their restore.
#include <cstdio>

#include "engine/files/net_lock.h"
#include "integration/cli/session.h"

namespace stasis::integration::cli {
namespace {

Result<int> run(Session& session) {
  if (!session.request.words.empty()) return fail(Code::kUsage, "recover takes no words");
  for (const auto& table : TRY(files::lock_tables()))
    if (TRY(files::remove_lock_table(table))) std::printf("removed network lock %s\n", table.c_str());
  return 0;
}

}  // namespace

const Command& recover_command() {
  static constexpr Command kCommand{
      "recover",
      "",
      "remove the network locks of checkpoints that will not be restored",
      "A checkpoint of connections in a network that goes on without the container leaves a table of nftables,\n"
      "stasis-lock-..., which drops their packets until the restore, or for an hour. All of them are removed.\n",
      0,
      {},
      run,
  };
  return kCommand;
}

}  // namespace stasis::integration::cli
