// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/process.h"

#include <fcntl.h>
#include <google/protobuf/stubs/logging.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "engine/base/log.h"
#include "engine/base/strings.h"

namespace stasis::cli {
namespace {

void unblock_all() {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

bool same_file(int a, int b) {
  struct stat sa {
  }, sb{};
  return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

// Passes signals on until `child` has ended.
int wait_for_worker(pid_t child, const sigset_t& watched) {
  while (true) {
    int status = 0;
    const pid_t pid = waitpid(child, &status, WNOHANG);
    if (pid < 0) return 1;
    if (pid == child && WIFEXITED(status)) return WEXITSTATUS(status);
    if (pid == child) {
      log::error("the worker ", child, " died of signal ", WTERMSIG(status));
      return 128 + WTERMSIG(status);
    }
    const int signal = sigwaitinfo(&watched, nullptr);
    if (signal > 0 && signal != SIGCHLD) kill(child, signal);
  }
}

void print_error(const Error& error, std::string& out) {
  const auto& info = code_info(error.code());
  out += cat("Error (", info.id, "): ", error.message());
  if (!error.object().empty() && error.message().find(error.object()) == std::string::npos)
    out += cat(" [", error.object(), "]");
  out += cat("\n  remedy: ", info.remedy, "\n");
  for (const auto& other : error.also()) print_error(other, out);
}

void log_all(const Error& error) {
  log::error(error.line());
  for (const auto& other : error.also()) log_all(other);
}

}  // namespace

void start_process() {
  // open(2) takes the lowest free number, so this fills exactly the gaps; not CLOEXEC, as stdio never is.
  for (int fd = 0; fd <= 2; ++fd)
    if (fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) < 0) break;
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_DFL);
  unblock_all();
  // It would complain about paths that are not UTF-8 on standard error, which on restore is the container's.
  google::protobuf::SetLogHandler(nullptr);
}

Result<int> wait_for_root(pid_t root) {
  while (true) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, 0);
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) return fail_sys("wait for the restored root task", cat("pid ", root));
    if (pid != root) continue;
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    if (WIFSIGNALED(status)) return 128 + WTERMSIG(status);
  }
}

int run_isolated(const std::function<int()>& work) {
  sigset_t watched, before;
  sigemptyset(&watched);
  for (int signal : {SIGCHLD, SIGINT, SIGTERM, SIGHUP}) sigaddset(&watched, signal);
  sigprocmask(SIG_BLOCK, &watched, &before);
  fflush(nullptr);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child != 0) {
    const int status = child < 0 ? 1 : wait_for_worker(child, watched);
    if (child < 0) report(Error::sys("fork", "the engine's worker"));
    sigprocmask(SIG_SETMASK, &before, nullptr);
    return status;
  }
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);
  sigprocmask(SIG_SETMASK, &before, nullptr);
  const int status = work();
  fflush(nullptr);
  _exit(status);
}

Error become(const std::vector<std::string>& argv) {
  std::vector<char*> words;
  for (const auto& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  signal(SIGPIPE, SIG_DFL);
  unblock_all();
  execvp(words[0], words.data());
  Error error = Error::sys(Code::kBadSupervisor, "execute the supervisor", argv[0]);
  signal(SIGPIPE, SIG_IGN);
  return error;
}

void report(const Error& error) {
  log_all(error);
  if (log::fd() >= 0 && same_file(log::fd(), 2)) return;
  std::string text;
  print_error(error, text);
  (void)!::write(2, text.data(), text.size());  // nowhere left to complain
}

}  // namespace stasis::cli
