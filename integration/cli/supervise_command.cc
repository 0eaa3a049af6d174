// SPDX-License-Identifier: Apache-2.0
// stasis supervise: the parent of a restored container. `stasis restore --exec-cmd -- stasis
// supervise` execs it over the engine, so the restored root task is its child already; wait(2),
// signal(7), prctl(2) PR_SET_CHILD_SUBREAPER.
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/cli/process.h"
#include "engine/procfs/procfs.h"
#include "integration/cli/session.h"
#include "integration/cli/target.h"

namespace stasis::integration::cli {
namespace {

struct Settings {
  pid_t root = 0;
  int stop_signal = 0;  // what the container gets for our SIGTERM and SIGINT; 0: the same
  std::optional<uint32_t> kill_after;
  std::string status_file;
};

Result<int> signal_number(std::string_view text) {
  std::string_view name = text;
  if (name.starts_with("SIG")) name.remove_prefix(3);
  for (int signal = 1; signal < NSIG; ++signal) {
    const char* abbreviation = ::sigabbrev_np(signal);
    if (abbreviation && name == abbreviation) return signal;
  }
  if (const auto number = parse_int<int>(name); number && *number > 0 && *number <= SIGRTMAX) return *number;
  if (name.starts_with("RTMIN+"))
    if (const auto offset = parse_int<int>(name.substr(6)); offset && *offset >= 0 && SIGRTMIN + *offset <= SIGRTMAX)
      return SIGRTMIN + *offset;
  return fail(Error(Code::kBadOption, cat("--stop-signal ", text, " is no signal")).about("--stop-signal"));
}

// Our eldest child: the engine makes the root task before any other.
Result<pid_t> find_root(const Session& session) {
  const auto proc = TRY(procfs::Procfs::open());
  const auto children = TRY(proc.children(::getpid()));
  if (session.request.opts.has_pid()) {
    const pid_t pid = session.request.opts.pid();
    if (std::find(children.begin(), children.end(), pid) == children.end())
      return fail(
          Error(Code::kNoContainer, cat("pid ", pid, " is not a child of this process")).about(cat("pid ", pid)));
    return pid;
  }
  if (children.empty())
    return fail(Code::kNoContainer,
                "there is nothing to supervise: run this by stasis restore --exec-cmd -- stasis supervise");
  return children.front();
}

Result<Settings> read_settings(const Session& session) {
  Settings settings;
  if (const auto* text = session.value("stop-signal")) settings.stop_signal = TRY(signal_number(*text));
  if (const auto* text = session.value("kill-after")) {
    settings.kill_after = parse_int<uint32_t>(*text);
    if (!settings.kill_after)
      return fail(
          Error(Code::kBadOption, cat("--kill-after ", *text, " is not a number of seconds")).about("--kill-after"));
  }
  if (const auto* text = session.value("status-file")) settings.status_file = *text;
  settings.root = TRY(find_root(session));
  return settings;
}

// Everything that can be waited for, except what a fault of our own raises.
sigset_t watched_signals() {
  sigset_t set;
  sigfillset(&set);
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGTTIN, SIGTTOU})
    sigdelset(&set, signal);
  return set;
}

// Reaps all that is there to be reaped; the root's wait status when it was among them.
std::optional<int> reap(pid_t root) {
  std::optional<int> ended;
  int status = 0;
  for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;)
    if (pid == root) ended = status;
  return ended;
}

class Supervisor {
 public:
  explicit Supervisor(const Settings& settings) : settings_(settings) {}

  // Until the root ends; its wait status.
  int run() {
    const sigset_t watched = watched_signals();
    sigprocmask(SIG_BLOCK, &watched, nullptr);
    while (true) {
      if (const auto status = reap(settings_.root)) return *status;
      siginfo_t info{};
      const auto timeout = time_left();
      const int signal = timeout ? sigtimedwait(&watched, &info, &*timeout) : sigwaitinfo(&watched, &info);
      if (signal > 0 && signal != SIGCHLD) forward(signal, info);
      if (signal < 0 && errno == EAGAIN) {
        log::warning("pid ", settings_.root, " does not end in ", *settings_.kill_after, " s: SIGKILL");
        ::kill(settings_.root, SIGKILL);
        deadline_.reset();
      }
    }
  }

 private:
  static timespec now() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time;
  }

  std::optional<timespec> time_left() const {
    if (!deadline_) return std::nullopt;
    const timespec time = now();
    const int64_t left = (deadline_->tv_sec - time.tv_sec) * 1'000'000'000LL + deadline_->tv_nsec - time.tv_nsec;
    if (left <= 0) return timespec{};
    return timespec{left / 1'000'000'000, left % 1'000'000'000};
  }

  void forward(int signal, const siginfo_t& info) {
    const bool stop = signal == SIGTERM || signal == SIGINT;
    // A terminal's Ctrl-C reaches a foreground container by itself only if it shares our session: it never does.
    int wanted = stop && settings_.stop_signal ? settings_.stop_signal : signal;
    if (stop && settings_.kill_after && !deadline_) {
      deadline_ = now();
      deadline_->tv_sec += *settings_.kill_after;
    }
    const int result = info.si_code == SI_QUEUE && wanted == signal ? ::sigqueue(settings_.root, wanted, info.si_value)
                                                                    : ::kill(settings_.root, wanted);
    if (result < 0 && errno != ESRCH)
      log::warning("signal ", wanted, " to pid ", settings_.root, ": ", ::strerrordesc_np(errno), ", ignoring");
  }

  const Settings& settings_;
  std::optional<timespec> deadline_;
};

int exit_code(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

Result<int> run(Session& session) {
  const Settings settings = TRY(read_settings(session));
  Fd status_file;
  if (!settings.status_file.empty()) {  // before anything happens: it may not be writable
    status_file = Fd(::open(settings.status_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!status_file) return fail_sys("create", settings.status_file);
  }
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) return fail_sys("prctl(PR_SET_CHILD_SUBREAPER)");
  const int code = exit_code(Supervisor(settings).run());
  if (status_file) {
    const std::string text = cat(code, "\n");
    if (::write(status_file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
      return fail_sys("write", settings.status_file);
  }
  if (session.request.words.empty()) return code;
  ::setenv("STASIS_EXIT_STATUS", cat(code).c_str(), 1);
  return fail(stasis::cli::become(session.request.words));
}

constexpr auto kBuilt = stasis::cli::Support::kBuilt;
constexpr stasis::cli::OptionSpec kExtra[] = {
    {0, "pid", stasis::cli::Arg::kRequired, false, kBuilt, 0, "", "PID", "the child to follow; default: the eldest",
     set_pid},
    {0, "stop-signal", stasis::cli::Arg::kRequired, false, kBuilt, 0, "", "SIGNAL",
     "what the container gets when we get SIGTERM or SIGINT (LXC: SIGPWR); default: the same"},
    {0, "kill-after", stasis::cli::Arg::kRequired, false, kBuilt, 0, "", "SECONDS",
     "SIGKILL when it has not ended so long after being told to stop"},
    {0, "status-file", stasis::cli::Arg::kRequired, false, kBuilt, 0, "", "FILE", "write the exit status there"},
};

}  // namespace

const Command& supervise_command() {
  static constexpr Command kCommand{
      "supervise",
      "[--stop-signal SIGNAL] [--kill-after SECONDS] [--status-file FILE] [-- CMD ARG...]",
      "be the parent of a restored container",
      "Forwards signals to the container's first process, reaps, and ends with its exit status (128 + N when\n"
      "signal N killed it); with CMD it becomes that command instead, with STASIS_EXIT_STATUS in its environment.\n"
      "  stasis restore -D DIR --bundle B --exec-cmd -- stasis supervise --kill-after 10 -- logger web has ended\n",
      0,
      kExtra,
      run,
  };
  return kCommand;
}

}  // namespace stasis::integration::cli
