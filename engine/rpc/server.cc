// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/server.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/log.h"
#include "engine/base/strings.h"
#include "engine/cli/check_command.h"
#include "engine/cli/config_file.h"
#include "engine/cli/process.h"
#include "engine/rpc/notifier.h"
#include "engine/rpc/responses.h"
#include "engine/rpc/wire.h"

namespace stasis::rpc {
namespace {

class Server {
 public:
  Server(Fd socket, const Result<cli::Request>& defaults, const cli::Engine& engine, const Connection& connection)
      : socket_(std::move(socket)), defaults_(defaults), engine_(engine), connection_(connection) {}

  Outcome run() {
    auto usable = check_socket(socket_.get());
    if (!usable) return cli::report(usable.error()), Outcome{};
    while (step()) {
    }
    Outcome outcome{status_, std::move(exec_cmd_), std::move(log_)};
    if (outcome.exec_cmd.empty() && outcome.log) {
      log::open(-1, log::level());
      outcome.log.reset();
    }
    return outcome;
  }

 private:
  // One request; whether another may follow.
  bool step() {
    if (!wait_for_request()) return false;
    auto record = receive(socket_.get());
    if (!record) return answer(failure(pb::EMPTY, record.error())), false;
    if (!*record) return false;  // the end; what was answered before decides the status
    auto request = parse_request(**record);
    if (!request) return answer(failure(pb::EMPTY, request.error())), false;
    if (request->type() == pb::DUMP) {
      status_ = engine_.isolate([&] { return answer(handle(*request)), status_; });
      return false;
    }
    answer(handle(*request));
    return request->keep_open() && is_question(request->type());
  }

  // False: the service ends, and nothing was asked yet.
  bool wait_for_request() const {
    pollfd items[] = {{socket_.get(), POLLIN, 0}, {connection_.stop, 0, 0}};
    while (poll(items, 2, -1) < 0)
      if (errno != EINTR) return false;
    return items[0].revents != 0;
  }

  pb::criu_resp handle(const pb::criu_req& request) {
    const auto type = request.type();
    if (connection_.refusal) return failure(type, *connection_.refusal);
    // Questions are answered without a look at opts: libcriu sends half-filled ones along.
    if (type == pb::VERSION) return version_response();
    if (type == pb::FEATURE_CHECK) return features_response();
    if (type == pb::CHECK) {
      auto fit = cli::check_required(engine_.features());
      return fit ? success(type) : failure(type, fit.error());
    }
    if (is_unbuilt(type))
      return failure(type, Error(Code::kUnsupportedOption, cat(pb::criu_req_type_Name(type), " is not built yet")));
    if (type != pb::DUMP && type != pb::RESTORE)
      return failure(pb::EMPTY,
                     Error(Code::kProtocol, cat("a request of type ", static_cast<int>(type), " makes no sense here")));
    auto done = type == pb::DUMP ? dump(request.opts()) : restore(request.opts());
    if (done) return *done;
    log::error(done.error().line());
    for (const auto& other : done.error().also()) log::error(other.line());
    return failure(type, done.error());
  }

  Result<Options> prepare(const pb::criu_opts& asked, cli::Action action) {
    if (!defaults_) return fail(defaults_.error());
    if (!defaults_->unsupported.empty())
      return fail(Code::kUnsupportedOption, cat(defaults_->unsupported[0], " (of a config file) is not built yet"));
    cli::Env env{.action = action, .door = cli::Door::kRpc};
    env.peer = connection_.peer ? connection_.peer->pid : TRY(peer_pid(socket_.get()));
    if (connection_.client) TRY(check_client_options(asked));  // before any file of its choice is read
    pb::criu_opts opts = TRY(effective_options(defaults_->opts, asked));
    TRY(fit_to_connection(opts));
    auto dirs = TRY(cli::open_directories(opts, env));
    if (connection_.peer) TRY(check_alive(*connection_.peer));
    log_ = TRY(cli::open_log(opts, env, dirs));
    if (fchdir(dirs.work.get()) != 0) return fail_sys("enter the work directory");
    Options options = TRY(cli::validate(opts, env, std::move(dirs)));
    options.client = connection_.client;
    return options;
  }

  Result<void> fit_to_connection(pb::criu_opts& opts) const {
    if (!connection_.peer) return {};
    for (const auto& [given, name] :
         {std::pair{opts.rst_sibling(), "rst_sibling"}, {opts.inherit_fd_size() > 0, "inherit_fd"}})
      if (given)
        return fail(
            Error(Code::kBadOption, cat(name, " is about the engine's own process: it needs swrk, not the service"))
                .about(name));
    if (!connection_.client) return {};
    TRY(check_client_options(opts));
    opts.set_manage_cgroups_mode(pb::IGNORE);
    return {};
  }

  Result<pb::criu_resp> dump(const pb::criu_opts& asked) {
    const Options options = TRY(prepare(asked, cli::Action::kDump));
    RpcNotifier notifier(socket_.get(), options.notify_scripts);
    (void)TRY(cli::run_checkpoint(engine_, options, &notifier));
    log::info("Dumping finished successfully");
    auto response = success(pb::DUMP);
    response.mutable_dump()->set_restored(false);
    return response;
  }

  Result<pb::criu_resp> restore(const pb::criu_opts& asked) {
    const Options options = TRY(prepare(asked, cli::Action::kRestore));
    RpcNotifier notifier(socket_.get(), options.notify_scripts);
    const Restored restored = TRY(cli::run_restore(engine_, options, &notifier));
    log::info("Restore finished successfully. Tasks resumed.");
    exec_cmd_ = options.exec_cmd;  // carried out by the caller, after the answer
    auto response = success(pb::RESTORE);
    response.mutable_restore()->set_pid(restored.root_pid);
    return response;
  }

  void answer(const pb::criu_resp& response) {
    status_ = response.success() ? 0 : 1;
    auto sent = send(socket_.get(), response);
    if (sent) return;
    log::error(sent.error().line());
    status_ = 1;
  }

  Fd socket_;
  const Result<cli::Request>& defaults_;
  const cli::Engine& engine_;
  const Connection& connection_;
  int status_ = 1;
  std::vector<std::string> exec_cmd_;
  Fd log_;
};

}  // namespace

Result<pb::criu_req> parse_request(std::string_view record) {
  pb::criu_req request;
  // Partial first: images_dir_fd is `required` on the wire, but a request may name images_dir instead.
  if (record.size() > kMaxRequest || !request.ParsePartialFromArray(record.data(), static_cast<int>(record.size())))
    return fail(Code::kProtocol, cat("a record of ", record.size(), " bytes is not a request"));
  if (request.has_opts() && !request.opts().has_images_dir_fd()) request.mutable_opts()->set_images_dir_fd(-1);
  if (!request.IsInitialized())
    return fail(Code::kProtocol, cat("the request lacks ", request.InitializationErrorString()));
  return request;
}

Result<pb::criu_opts> effective_options(const pb::criu_opts& defaults, const pb::criu_opts& request) {
  cli::Request merged;
  merged.opts = defaults;
  // A descriptor and a path are two ways to name one directory: the later word wins.
  if (request.images_dir_fd() >= 0 || request.has_images_dir()) merged.opts.clear_images_dir();
  if (request.has_work_dir_fd()) merged.opts.clear_stasis_work_dir();
  merged.opts.MergeFrom(request);
  if (request.images_dir_fd() < 0) merged.opts.set_images_dir_fd(-1);
  if (!request.has_config_file() || request.config_file().empty()) return merged.opts;
  if (request.config_file().find('\0') != std::string::npos)
    return fail(Code::kBadOption, "the config file's name contains a NUL byte");
  const bool found = TRY(cli::read_config(request.config_file(), merged));
  if (!found) log::debug("config file ", request.config_file(), " does not exist, ignoring");
  if (!merged.unsupported.empty())
    return fail(
        Error(Code::kUnsupportedOption, cat(merged.unsupported[0], " is not built yet")).about(merged.unsupported[0]));
  return merged.opts;
}

Outcome serve(Fd socket, const Result<cli::Request>& defaults, const cli::Engine& engine,
              const Connection& connection) {
  return Server(std::move(socket), defaults, engine, connection).run();
}

}  // namespace stasis::rpc
