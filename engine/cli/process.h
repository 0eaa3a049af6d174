// SPDX-License-Identifier: Apache-2.0
// What a door does to its own process: at the start, before an exec, and while the restored tree runs.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/base/result.h"

namespace stasis::cli {

// Descriptors 0-2 open (on /dev/null if they were not), SIGPIPE ignored, SIGCHLD default, no signal blocked.
// LXC starts the engine with descriptor 0 or 2 closed and nearly everything blocked.
void start_process();

// Reaps every child until `root` is among them; its exit code, or 128 + the signal that killed it.
Result<int> wait_for_root(pid_t root);

// Runs `work` in a child and returns its status, or 128 + the signal that killed it. For what drives tasks that are
// not our own: a tracer that is killed while it brings the runner into a task takes the task along. Whoever wants us
// gone kills this process, which traces nothing; the child is told (SIGTERM) and ends with every task as it was.
// SIGINT, SIGTERM and SIGHUP are passed on to it.
int run_isolated(const std::function<int()>& work);

// Becomes `argv` (execvp(3)) with the descriptors that we were started with (ours are all close-on-exec), no signal
// blocked and SIGPIPE back to normal.
// Comes back only with an error.
Error become(const std::vector<std::string>& argv);

// The error as a log line each, and on standard error unless that is where the log goes.
void report(const Error& error);

}  // namespace stasis::cli
