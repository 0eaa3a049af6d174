// SPDX-License-Identifier: Apache-2.0
#include "integration/cli/stasis_main.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "engine/base/log.h"
#include "engine/cli/arguments.h"
#include "engine/cli/criu_main.h"
#include "engine/cli/process.h"
#include "engine/into.h"
#include "integration/cli/session.h"
#include "integration/into/hook.h"
#include "integration/into/scaffold.h"

namespace stasis::integration::cli {
namespace {

Result<int> run_version(Session& session) {
  TRY(at_most_words(session, 0));
  if (session.json)
    std::printf("{\"version\":\"%s\",\"criu\":\"%d.%d\"}\n", std::string(kVersion).c_str(), stasis::cli::kCriuMajor,
                stasis::cli::kCriuMinor);
  else
    std::printf("stasis %s (drop-in for criu %d.%d)\n", std::string(kVersion).c_str(), stasis::cli::kCriuMajor,
                stasis::cli::kCriuMinor);
  return 0;
}

constexpr stasis::cli::OptionSpec kVersionExtra[] = {kJsonOption};

const Command& version_command() {
  static constexpr Command kCommand{"version", "", "print the version", "", 0, kVersionExtra, run_version};
  return kCommand;
}

std::array<const Command*, 8> commands() {
  return {&checkpoint_command(), &restore_command(), &check_command(),     &plan_command(),
          &recover_command(),    &show_command(),    &supervise_command(), &version_command()};
}

std::string help() {
  std::string out = "Checkpoint and restore containers.\n\nUsage:\n";
  for (const Command* command : commands()) {
    std::string head = cat("  stasis ", command->name);
    head.resize(22, ' ');
    out += cat(head, command->summary, "\n");
  }
  out +=
      "  stasis COMMAND --help\n\nEach takes --json. Under the name criu, or as `stasis criu`, this program is a "
      "drop-in for criu.\n";
  return out;
}

std::string help(const Command& command) {
  std::string out = cat("Usage: stasis ", command.name, " ", command.usage, "\n\n", command.summary, "\n");
  if (!command.details.empty()) out += cat("\n", command.details);
  return cat(out, "\nOptions:\n", stasis::cli::option_help(command.where, true, command.extra));
}

// The log is often a duplicate of standard error: nobody wants to read it twice.
bool is_standard_error(int fd) {
  struct stat a {
  }, b{};
  return ::fstat(fd, &a) != 0 || ::fstat(STDERR_FILENO, &b) != 0 || (a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

int tell(const Error& error, bool json) {
  if (json)
    std::printf("%s\n", error.json().c_str());
  else
    std::fputs(error.pretty().c_str(), stderr);
  std::fflush(stdout);
  if (!is_standard_error(log::fd())) log::error(error.line());
  return error.code() == Code::kUsage ? 2 : 1;
}

int run(const Command& command, std::span<const std::string> args) {
  Session session;
  // Known before the rest is parsed, so that a bad option is told as JSON too.
  const auto end = std::find(args.begin(), args.end(), "--");
  session.json = std::find(args.begin(), end, "--json") != end;
  session.request.opts.set_log_level(static_cast<int>(log::Level::kWarning));
  auto parsed = stasis::cli::parse_arguments(args, true, session.request, command.extra);
  if (!parsed) return tell(parsed.error(), session.json);
  if (session.request.help) {
    std::fputs(help(command).c_str(), stdout);
    return 0;
  }
  if (!session.request.unsupported.empty())
    return tell(Error(Code::kUnsupportedOption, cat(session.request.unsupported[0], " is not built yet"))
                    .about(session.request.unsupported[0]),
                session.json);
  auto work = [&] {
    Result<int> status = command.run(session);
    if (!status) return tell(status.error(), session.json);
    // Output that could not be written (a full disk, say) must not look like success.
    if (std::fflush(stdout) != 0 && *status == 0) return tell(Error::sys("write", "standard output"), false);
    return *status;
  };
  return command.isolated ? stasis::cli::run_isolated(work) : work();
}

}  // namespace

int stasis_main(int argc, char** argv) {
  stasis::cli::start_process();
  log::open(STDERR_FILENO, log::Level::kWarning);
  const std::vector<std::string> args(argv + std::min(argc, 1), argv + argc);
  const std::string name = args.empty() ? "" : args[0];
  if (name == "criu") return stasis::cli::criu_main(argc - 1, argv + 1);
  if (name == into::kWaitCommand && args.size() == 2) {
    // Standard error is the container's; who waits for us hears of it by our end.
    log::open(-1, log::Level::kError);
    (void)stasis::into::wait_to_become_root(args[1]);
    return 1;
  }
  if (name == into::kHookCommand) return run(hook_command(), std::span(args).subspan(1));
  if (name == "--help" || name == "-h" || name == "help") {
    std::fputs(help().c_str(), stdout);
    return 0;
  }
  if (name.empty()) {
    std::fputs(help().c_str(), stderr);
    return 2;
  }
  for (const Command* command : commands())
    if (command->name == name || (command->name == "version" && (name == "--version" || name == "-V")))
      return run(*command, std::span(args).subspan(1));
  return tell(Error(Code::kUsage, cat("unknown command ", json_quote(name), "; see stasis --help")).about(name), false);
}

}  // namespace stasis::integration::cli
