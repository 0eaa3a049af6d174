// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/criu_main.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "engine/base/strings.h"
#include "engine/cli/arguments.h"
#include "engine/cli/check_command.h"
#include "engine/cli/config_file.h"
#include "engine/cli/lxc.h"
#include "engine/cli/process.h"
#include "engine/rpc/server.h"
#include "engine/rpc/service.h"

namespace stasis::cli {
namespace {

constexpr std::string_view kUsage =
    "Usage:\n"
    "  criu dump -t PID [options]       checkpoint a process tree\n"
    "  criu restore [options]           restore one\n"
    "  criu restore [options] --exec-cmd -- COMMAND [ARGS]\n"
    "  criu check [--feature NAME]      is the kernel fit for it?\n"
    "  criu swrk FD                     serve one client on a connected socket\n"
    "  criu service [--address PATH] [-d] [--pidfile FILE] [-W DIR]\n"
    "                                   serve every client that connects to the socket PATH (mode 0600)\n"
    "\nOptions:\n";

constexpr std::string_view kUnbuilt[] = {"pre-dump", "page-server", "dedup", "lazy-pages", "cpuinfo"};

// Relative paths are CRIU's way taken from the work directory; one that exists from here is meant from here.
void anchor(std::string& path) {
  if (path.empty() || path.starts_with('/') || path.find('/') == std::string::npos) return;
  const std::unique_ptr<char, void (*)(void*)> here(get_current_dir_name(), free);
  if (here && access(path.c_str(), F_OK) == 0) path = cat(here.get(), "/", path);
}

void anchor_paths(pb::criu_opts& opts) {
  if (opts.exec_cmd_size() > 0) anchor(*opts.mutable_exec_cmd(0));
  if (opts.has_stasis_action_script()) anchor(*opts.mutable_stasis_action_script());
  if (opts.has_root()) anchor(*opts.mutable_root());
}

struct Prepared {
  Options options;
  Fd log;
};

Result<Prepared> prepare(Request& request, Action action) {
  const Env env{.action = action, .door = Door::kCriu};
  if (!request.unsupported.empty())
    return fail(Error(Code::kUnsupportedOption, cat(request.unsupported[0], " is not built yet"))
                    .about(request.unsupported[0]));
  for (const int fd : request.close_fds) close(fd);
  Directories dirs = TRY(open_directories(request.opts, env));
  Prepared out;
  out.log = TRY(open_log(request.opts, env, dirs));
  anchor_paths(request.opts);
  if (fchdir(dirs.work.get()) != 0) return fail_sys("enter the work directory");
  out.options = TRY(validate(request.opts, env, std::move(dirs)));
  return out;
}

int dump(Request& request, const Engine& engine) {
  auto prepared = prepare(request, Action::kDump);
  if (!prepared) return report(prepared.error()), 1;
  auto stats = run_checkpoint(engine, prepared->options);
  if (!stats) return report(stats.error()), 1;
  settle_tty_info(prepared->options);
  if (prepared->options.display_stats) printf("%s", describe(*stats).c_str());
  log::info("Dumping finished successfully");
  return 0;
}

int restore(Request& request, const Engine& engine) {
  auto prepared = prepare(request, Action::kRestore);
  if (!prepared) return report(prepared.error()), 1;
  const Options& options = prepared->options;
  auto restored = run_restore(engine, options);
  if (!restored) return report(restored.error()), 1;
  if (options.display_stats) printf("%s", describe(restored->stats).c_str());
  fflush(stdout);
  log::info("Restore finished successfully. Tasks resumed.");
  if (options.parent == RestoreParent::kExecCmd) return report(become(options.exec_cmd)), 1;
  if (options.parent != RestoreParent::kWait) return 0;
  auto status = wait_for_root(restored->root_pid);
  if (!status) return report(status.error()), 1;
  return *status;
}

int swrk(const Request& request, const Result<Request>& defaults, const Engine& engine) {
  const auto fd = request.words.size() == 2 ? parse_int<int>(request.words[1]) : std::nullopt;
  if (!fd || *fd < 0 || fcntl(*fd, F_GETFD) < 0) {
    report(Error(Code::kUsage, "swrk needs the number of an open socket"));
    return 1;
  }
  fcntl(*fd, F_SETFD, FD_CLOEXEC);
  rpc::Outcome outcome = rpc::serve(Fd(*fd), defaults, engine);
  if (outcome.exec_cmd.empty()) return outcome.status;
  if (outcome.log) {
    dup2(outcome.log.get(), 1);
    dup2(outcome.log.get(), 2);
  }
  return report(become(outcome.exec_cmd)), 1;
}

int service(Request request, const Engine& engine) {
  if (request.words.size() != 1) return report(Error(Code::kUsage, "service takes no words")), 1;
  rpc::ServiceOptions options;
  // What is about the service itself is no default for the requests.
  auto& opts = request.opts;
  if (opts.has_ps()) options.address = opts.ps().address();
  if (opts.ps().has_port() || opts.ps().has_fd())
    return report(Error(Code::kUsage, "service listens on a unix socket: it takes no port")), 1;
  options.work_dir = opts.stasis_work_dir();
  options.pidfile = opts.stasis_pidfile();
  options.daemon = request.daemon || opts.stasis_restore_detached();
  opts.clear_ps(), opts.clear_stasis_work_dir(), opts.clear_stasis_pidfile(), opts.clear_stasis_restore_detached();
  return rpc::run_service(options, std::move(request), engine);
}

// Config files first, the command line over them.
Result<Request> with_configs(const Request& asked, std::span<const std::string> args) {
  Request request;
  if (asked.config_file) {
    const bool found = TRY(read_config(*asked.config_file, request));
    if (!found)
      return fail(
          Error(Code::kNotFound, cat("config file ", *asked.config_file, " does not exist")).about(*asked.config_file));
  } else if (asked.default_config) {
    TRY(read_default_configs(config_places(), request));
  }
  TRY(parse_arguments(args, false, request));
  return request;
}

int run_command(const Request& asked, std::span<const std::string> args, const Engine& engine) {
  const std::string& command = asked.words[0];
  auto request = with_configs(asked, args);
  if (command == "swrk") return swrk(asked, request, engine);
  if (!request) return report(request.error()), 1;
  if (command == "service") return service(std::move(*request), engine);
  auto taken = take_exec_cmd(*request, 1);
  if (!taken) return report(taken.error()), 1;
  if (request->exec_cmd && command != "restore")
    return report(Error(Code::kUsage, "--exec-cmd is available for restore only")), 1;
  if (command == "dump") return engine.isolate([&] { return dump(*request, engine); });
  if (command == "restore") return restore(*request, engine);
  return check_command(engine.features(), request->features, request->check_all);
}

}  // namespace

int criu_main(int argc, char** argv) { return criu_main(argc, argv, real_engine()); }

int criu_main(int argc, char** argv, const Engine& engine) {
  start_process();
  log::open(2, log::Level::kWarning);
  const std::vector<std::string> args(argv + std::min(argc, 1), argv + argc);
  Request asked;
  auto parsed = parse_arguments(args, false, asked);
  if (!parsed) return report(parsed.error()), 1;
  if (asked.version) {
    printf("Version: %d.%d\n", kCriuMajor, kCriuMinor);
    return fflush(stdout) == 0 ? 0 : 1;
  }
  if (asked.help || asked.words.empty()) {
    const std::string text = cat(kUsage, option_help(kDump | kRestore | kCheck | kOther, false));
    fprintf(asked.help ? stdout : stderr, "%s", text.c_str());
    return asked.help ? 0 : 1;
  }
  const std::string& command = asked.words[0];
  if (std::ranges::find(kUnbuilt, command) != std::end(kUnbuilt)) {
    report(Error(Code::kUnsupportedOption, cat("the command ", command, " is not built yet")).about(command));
    return 1;
  }
  if (command != "dump" && command != "restore" && command != "check" && command != "swrk" && command != "service") {
    report(Error(Code::kUsage, cat("unknown command \"", command, "\"")).about(command));
    return 1;
  }
  return run_command(asked, args, engine);
}

}  // namespace stasis::cli
