// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/notifiers.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/interrupt.h"
#include "engine/base/io.h"
#include "engine/base/spawn.h"
#include "engine/base/strings.h"
#include "engine/kernel/syscalls.h"

namespace stasis::cli {
namespace {

std::vector<std::string> script_environment(std::string_view script, int images_dir, pid_t root_pid) {
  std::vector<std::string> env;
  for (char** var = environ; var && *var; ++var)
    if (!std::string_view(*var).starts_with("CRTOOLS_")) env.emplace_back(*var);
  env.push_back(cat("CRTOOLS_SCRIPT_ACTION=", script));
  // The script is another process: it reaches our directory through the link of our descriptor.
  env.push_back(cat("CRTOOLS_IMAGE_DIR=/proc/", getpid(), "/fd/", images_dir));
  if (root_pid > 0) env.push_back(cat("CRTOOLS_INIT_PID=", root_pid));
  return env;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (auto& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

Result<int> run(const std::string& path, std::vector<std::string> env, int log_fd) {
  SpawnSetup setup;
  posix_spawn_file_actions_addopen(&setup.actions, 0, "/dev/null", O_RDONLY, 0);
  if (log_fd >= 0) {
    posix_spawn_file_actions_adddup2(&setup.actions, log_fd, 1);
    posix_spawn_file_actions_adddup2(&setup.actions, log_fd, 2);
  }
  posix_spawn_file_actions_addclosefrom_np(&setup.actions, 3);
  std::vector<std::string> words = {path};
  pid_t child = -1;
  const int err = posix_spawn(&child, path.c_str(), &setup.actions, &setup.attributes, pointers(words).data(),
                              pointers(env).data());
  if (err != 0) {
    errno = err;
    return fail_sys(Code::kHookFailed, "execute the action script", path);
  }
  // A script that hangs must not keep us from ending when we are told to.
  Result<void> ended;
  if (const auto pidfd = kernel::pidfd_open(child)) ended = wait_readable(pidfd->get());
  if (!ended) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return fail_sys(Code::kHookFailed, "wait for the action script", path);
  TRY(std::move(ended));
  return status;
}

}  // namespace

bool failure_is_tolerated(std::string_view script) {
  return script == "network-unlock" || script == "pre-resume" || script == "post-resume";
}

Result<void> ScriptNotifier::notify(std::string_view script, pid_t pid, int) {
  if (pid > 0) root_pid_ = pid;
  // These two are questions that only a client on a socket can answer.
  if (script == "orphan-pts-master" || script == "query-ext-files") return {};
  const auto env = script_environment(script, options_.images_dir.get(), root_pid_);
  auto status = run(options_.action_script, env, log::fd());
  if (status && WIFEXITED(*status) && WEXITSTATUS(*status) == 0) return {};
  Error error = status
                    ? Error(Code::kHookFailed,
                            WIFEXITED(*status)
                                ? cat("the action script failed at ", script, ": exit status ", WEXITSTATUS(*status))
                                : cat("the action script failed at ", script, ": killed by signal ", WTERMSIG(*status)))
                          .about(options_.action_script)
                    : std::move(status).error();
  if (!failure_is_tolerated(script)) return fail(std::move(error));
  log::warning(error.line(), ", ignoring");
  return {};
}

Result<PidfileNotifier> PidfileNotifier::create(std::string path) {
  // Absolute, so that it is found again whatever the working directory is by then.
  if (!path.starts_with('/')) {
    char* here = get_current_dir_name();
    if (!here) return fail_sys("find the current directory");
    path = cat(here, "/", path);
    free(here);
  }
  Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) return fail_sys(Code::kBadOption, "create the pidfile", path);
  return PidfileNotifier(std::move(path), std::move(file));
}

PidfileNotifier::~PidfileNotifier() {
  if (file_ && unlink(path_.c_str()) != 0) log::warning("cannot remove ", path_, ", ignoring");
}

Result<void> PidfileNotifier::write(pid_t pid) {
  if (written_ || !file_) return {};
  const std::string text = cat(pid);
  TRY(write_full(file_.get(), text.data(), text.size(), path_));
  written_ = true;
  return {};
}

Result<void> PidfileNotifier::notify(std::string_view script, pid_t pid, int) {
  if (script == "post-restore" && pid > 0) TRY(write(pid));
  return {};
}

Result<void> NotifierList::notify(std::string_view script, pid_t pid, int fd) {
  for (auto* notifier : list_) TRY(notifier->notify(script, pid, fd));
  return {};
}

}  // namespace stasis::cli
