// SPDX-License-Identifier: Apache-2.0
#include "integration/external_engine.h"

#include <cstring>
#include <optional>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/cli/notifiers.h"
#include "engine/image/stats.h"
#include "integration/engine_link.h"

namespace stasis::integration {
namespace {

constexpr size_t kMaxLog = 64 << 20;

// The lines of the engine's log that say what went wrong: the last three.
std::string log_tail(const Options& options, const std::string& name) {
  const auto text = read_file_at(options.work_dir.get(), name, kMaxLog);
  if (!text) return {};
  std::vector<std::string> wrong;
  for (const auto line : split(*text, '\n'))
    if (line.find("Error") != std::string_view::npos) wrong.emplace_back(trim(line));
  if (wrong.size() > 3) wrong.erase(wrong.begin(), wrong.end() - 3);
  return join(wrong, " | ");
}

// An engine of our own kind says its code.
Code code_of(std::string_view text) {
  for (const auto& info : all_codes())
    if (text.starts_with(cat(info.id, ":"))) return info.code;
  return Code::kEngineFailed;
}

Notifier& with_own(const Options& options, cli::NotifierList& list, std::optional<cli::PidfileNotifier>& pidfile,
                   cli::ScriptNotifier& script, Notifier& client) {
  if (pidfile) list.add(*pidfile);
  if (!options.action_script.empty()) list.add(script);
  list.add(client);
  return list;
}

}  // namespace

Result<ExternalEngine> ExternalEngine::find(const std::string& path) {
  EngineLink link = TRY(EngineLink::start(path, {}, false));
  pb::criu_req request;
  request.set_type(pb::VERSION);
  TRY(link.send(request));
  const auto answer = TRY(link.receive()).response;
  if (answer.type() != pb::VERSION || !answer.success() || !answer.has_version())
    return fail(Error(Code::kEngineFailed, cat(path, " does not tell its version")).about(path));
  const auto& v = answer.version();
  const int version = v.major_number() * 10000 + v.minor_number() * 100 + v.sublevel();
  log::info("engine ", path, ", version ", v.major_number(), ".", v.minor_number(), ".", v.sublevel());
  if (version < kOldest)
    return fail(Error(Code::kEngineFailed, cat(path, " has version ", v.major_number(), ".", v.minor_number(),
                                               "; 3.11 is the oldest that can be driven"))
                    .about(path));
  return ExternalEngine(path, version);
}

Error ExternalEngine::failure(const pb::criu_resp& response, std::string_view status, const EngineRequest& request,
                              const Options& options) const {
  std::string text = response.cr_errmsg();
  if (text.empty() && response.cr_errno() > 0) text = strerror(response.cr_errno());
  const std::string tail = log_tail(options, request.opts.log_file());
  if (!tail.empty() && tail.find(text) == std::string::npos) text += cat(text.empty() ? "" : "; ", "its log: ", tail);
  if (text.empty()) text = status.empty() ? "it does not say why" : status;
  return Error(code_of(response.cr_errmsg()), cat("the engine ", path_, " failed: ", text))
      .about(path_)
      .with_errno(response.cr_errno());
}

Result<pb::criu_resp> ExternalEngine::request(pb::criu_req_type type, const EngineRequest& request,
                                              const Options& options, Notifier& notifier) const {
  EngineLink link = TRY(EngineLink::start(path_, request.passed, type == pb::RESTORE));
  pb::criu_req message;
  message.set_type(type);
  *message.mutable_opts() = request.opts;
  TRY(link.send(message));
  std::optional<Error> refused;
  while (true) {
    auto received = link.receive();
    if (!received) {
      if (refused) return fail(std::move(*refused));
      const std::string tail = log_tail(options, request.opts.log_file());
      return fail(tail.empty() ? std::move(received).error()
                               : std::move(received).error().context(cat("its log: ", tail)));
    }
    const auto& response = received->response;
    if (response.type() != pb::NOTIFY) {
      const std::string status = link.finish();
      if (response.success() && response.type() == type) {
        if (!status.empty()) log::warning("the engine was successful and ended with ", status, ", ignoring");
        return response;
      }
      if (refused) return fail(std::move(*refused));
      return fail(failure(response, status, request, options));
    }
    auto heard = notifier.notify(response.notify().script(), response.notify().pid(), received->fd.get());
    pb::criu_req reply;
    reply.set_type(pb::NOTIFY);
    reply.set_notify_success(heard.has_value());
    if (!heard) refused = std::move(heard).error();
    if (auto sent = link.send(reply); !sent && !refused) return fail(std::move(sent).error());
  }
}

Result<DumpStats> ExternalEngine::checkpoint(const pb::criu_opts& opts, const Options& options,
                                             const std::vector<cgroups::Hierarchy>& hierarchies,
                                             Notifier& notifier) const {
  const auto wanted = TRY(engine_request(opts, options, PlanFor::kDump, version_, hierarchies));
  cli::NotifierList list;
  cli::ScriptNotifier script(options);
  std::optional<cli::PidfileNotifier> no_pidfile;
  (void)TRY(request(pb::DUMP, wanted, options, with_own(options, list, no_pidfile, script, notifier)));
  DumpStats stats;
  const auto written = image::read_stats(options.work_dir.get(), "stats-dump");
  if (!written || !written->has_dump()) return stats;  // the checkpoint stands without them
  stats.freezing_us = written->dump().freezing_time(), stats.frozen_us = written->dump().frozen_time();
  stats.memdump_us = written->dump().memdump_time(), stats.memwrite_us = written->dump().memwrite_time();
  stats.pages_scanned = written->dump().pages_scanned(), stats.pages_written = written->dump().pages_written();
  return stats;
}

Result<Restored> ExternalEngine::restore(const pb::criu_opts& opts, const Options& options,
                                         const std::vector<cgroups::Hierarchy>& hierarchies, Notifier& notifier) const {
  const auto wanted = TRY(engine_request(opts, options, PlanFor::kRestore, version_, hierarchies));
  cli::NotifierList list;
  cli::ScriptNotifier script(options);
  std::optional<cli::PidfileNotifier> pidfile;
  if (!options.pidfile.empty()) pidfile.emplace(TRY(cli::PidfileNotifier::create(options.pidfile)));
  const auto response = TRY(request(pb::RESTORE, wanted, options, with_own(options, list, pidfile, script, notifier)));
  Restored restored;
  restored.root_pid = response.restore().pid();
  if (restored.root_pid <= 0)
    return fail(Error(Code::kEngineFailed, cat(path_, " restored, and does not say which process")).about(path_));
  if (pidfile) {
    if (auto written = pidfile->write(restored.root_pid); !written)
      log::warning("pidfile: ", written.error().line(), ", ignoring");
    pidfile->keep();
  }
  const auto written = image::read_stats(options.work_dir.get(), "stats-restore");
  if (!written || !written->has_restore()) return restored;
  restored.stats.forking_us = written->restore().forking_time();
  restored.stats.restore_us = written->restore().restore_time();
  restored.stats.pages_restored = written->restore().pages_restored();
  return restored;
}

}  // namespace stasis::integration
