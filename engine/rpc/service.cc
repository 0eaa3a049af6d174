// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/service.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/base/strings.h"
#include "engine/cli/notifiers.h"
#include "engine/cli/process.h"
#include "engine/rpc/listener.h"
#include "engine/rpc/responses.h"
#include "engine/rpc/server.h"
#include "engine/rpc/wire.h"

namespace stasis::rpc {
namespace {

// Connections cost a process each. Root is not limited: it could do worse.
constexpr size_t kMostOfAUser = 32, kMostOfUsers = 256;

struct Pipe {
  Fd read, write;
};
Result<Pipe> make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return fail_sys("pipe2");
  return Pipe{Fd(ends[0]), Fd(ends[1])};
}

class Service {
 public:
  Service(Listener& listener, const Result<cli::Request>& defaults, const cli::Engine& engine)
      : listener_(listener), defaults_(defaults), engine_(engine) {}

  // Until it is told to stop.
  Result<void> run() {
    // Blocked in this process only: they are looked for between the connections.
    sigset_t watched;
    sigemptyset(&watched);
    for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&watched, signal);
    sigprocmask(SIG_BLOCK, &watched, nullptr);
    const Fd signals(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals) return fail_sys("signalfd");
    stop_ = TRY(make_pipe());
    busy_ = TRY(make_pipe());
    while (!stopped(signals.get())) {
      pollfd items[] = {{signals.get(), POLLIN, 0}, {listener_.socket(), POLLIN, 0}};
      if (poll(items, 2, -1) < 0 && errno != EINTR) return fail_sys("poll");
      if (items[1].revents != 0) accept_one();
    }
    return finish();
  }

 private:
  bool stopped(int signals) {
    signalfd_siginfo info;
    bool stop = false;
    while (read(signals, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) stop |= info.ssi_signo != SIGCHLD;
    reap();
    return stop;
  }

  void reap() {
    int status = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
      if (WIFSIGNALED(status)) log::warning("the process ", pid, " of a client died of signal ", WTERMSIG(status));
      workers_.erase(pid);
    }
  }

  bool too_many(uint32_t uid) const {
    if (uid == 0) return false;
    size_t own = 0, users = 0;
    for (const auto& [pid, owner] : workers_) own += owner == uid, users += owner != 0;
    return own >= kMostOfAUser || users >= kMostOfUsers;
  }

  void accept_one() {
    Fd socket(accept4(listener_.socket(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket) {
      if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) return;
      const timespec nap{0, 50'000'000};  // until somebody is finished
      nanosleep(&nap, nullptr);
      return;
    }
    auto peer = identify(socket.get());
    if (peer && too_many(peer->uid)) peer = fail(Code::kPermission, cat("too many connections of user ", peer->uid));
    if (!peer) return refuse(socket.get(), peer.error());
    log::info("a client: pid ", peer->pid, ", user ", peer->uid);
    const pid_t pid = fork();
    if (pid < 0) return refuse(socket.get(), Error::sys("fork", "for a client"));
    if (pid == 0) work(std::move(socket), *peer);
    workers_[pid] = peer->uid;
  }

  static void refuse(int socket, const Error& error) {
    log::error(error.line());
    (void)send(socket, failure(pb::EMPTY, error));
  }

  // In a process of its own, of which nothing comes back.
  [[noreturn]] void work(Fd socket, Peer& peer) {
    listener_.forget();
    stop_.write.reset();
    busy_.read.reset();
    setsid();  // a signal from our terminal is for the service
    cli::start_process();
    Connection connection{.peer = &peer, .stop = stop_.read.get()};
    if (peer.uid != 0) {
      auto client = become_client(socket.get(), peer);
      if (client)
        connection.client = std::move(*client);
      else  // told when it asks: before that it does not listen
        log::error(client.error().line()), connection.refusal = client.error();
    }
    Outcome outcome = serve(std::move(socket), defaults_, engine_, connection);
    if (outcome.exec_cmd.empty()) _exit(outcome.status);
    if (outcome.log) {
      dup2(outcome.log.get(), 1);
      dup2(outcome.log.get(), 2);
    }
    cli::report(cli::become(outcome.exec_cmd));
    _exit(1);
  }

  // Idle connections end as `stop_` hangs up. A request is over when its process has closed `busy_`: by ending, or
  // by having become a supervisor, which may live for ever.
  Result<void> finish() {
    log::info("the service ends, ", workers_.size(), " connections are open");
    listener_.close();
    stop_.write.reset();
    busy_.write.reset();
    char none;
    ssize_t n;
    do n = read(busy_.read.get(), &none, 1);
    while (n < 0 && errno == EINTR);
    reap();
    return {};
  }

  Listener& listener_;
  const Result<cli::Request>& defaults_;
  const cli::Engine& engine_;
  Pipe stop_, busy_;
  std::map<pid_t, uint32_t> workers_;  // and whose they are
};

// Goes on in the child; `ready` is told when the service can be reached, and until then the parent waits.
Result<Fd> go_to_background() {
  auto ready = TRY(make_pipe());
  const pid_t pid = fork();
  if (pid < 0) return fail_sys("fork", "the daemon");
  if (pid == 0) {
    setsid();
    return std::move(ready.write);
  }
  ready.write.reset();
  char word = 0;
  ssize_t n;
  do n = read(ready.read.get(), &word, 1);
  while (n < 0 && errno == EINTR);
  _exit(n == 1 ? 0 : 1);  // what went wrong was said by the child
}

void leave_terminal(Fd ready) {
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int fd = 0; null && fd <= 2; ++fd) dup2(null.get(), fd);
  (void)!::write(ready.get(), "r", 1);
}

Result<void> start(const ServiceOptions& options, cli::Request request, const cli::Engine& engine) {
  cli::Directories dirs;
  if (!options.work_dir.empty() && chdir(options.work_dir.c_str()) != 0)
    return fail_sys("enter the work directory", options.work_dir);
  dirs.work = TRY(open_at(AT_FDCWD, ".", O_RDONLY | O_DIRECTORY));
  if (options.daemon && !request.opts.has_log_file()) request.opts.set_log_file("service.log");
  const Fd log = TRY(cli::open_log(request.opts, {.door = cli::Door::kCriu}, dirs));
  request.opts.clear_log_file();  // each request has its own

  auto listener = TRY(Listener::inherited());
  if (!listener) listener = TRY(Listener::bind(options.address));
  Fd ready;
  if (options.daemon) ready = TRY(go_to_background());
  std::optional<cli::PidfileNotifier> pidfile;
  if (!options.pidfile.empty()) {
    pidfile.emplace(TRY(cli::PidfileNotifier::create(options.pidfile)));
    TRY(pidfile->write(getpid()));
  }
  if (ready) leave_terminal(std::move(ready));
  log::info("the service listens on ", options.address);
  const Result<cli::Request> defaults(std::move(request));
  return Service(*listener, defaults, engine).run();
}

}  // namespace

int run_service(const ServiceOptions& options, cli::Request request, const cli::Engine& engine) {
  auto done = start(options, std::move(request), engine);
  if (done) return 0;
  cli::report(done.error());
  return 1;
}

}  // namespace stasis::rpc
