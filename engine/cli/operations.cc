// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/operations.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "engine/base/io.h"
#include "engine/base/strings.h"
#include "engine/cli/notifiers.h"
#include "engine/cli/process.h"
#include "engine/image/stats.h"

namespace stasis::cli {
namespace {

void save(const Options& options, const DumpStats& stats) {
  pb::dump_stats_entry entry;
  entry.set_freezing_time(stats.freezing_us);
  entry.set_frozen_time(stats.frozen_us);
  entry.set_memdump_time(stats.memdump_us);
  entry.set_memwrite_time(stats.memwrite_us);
  entry.set_pages_scanned(stats.pages_scanned);
  entry.set_pages_written(stats.pages_written);
  auto written = image::write_dump_stats(options.work_dir.get(), entry);
  // The checkpoint stands without them.
  if (!written) log::warning("statistics: ", written.error().line(), ", ignoring");
}

void save(const Options& options, const RestoreStats& stats) {
  pb::restore_stats_entry entry;
  entry.set_forking_time(stats.forking_us);
  entry.set_restore_time(stats.restore_us);
  entry.set_pages_restored(stats.pages_restored);
  auto written = image::write_restore_stats(options.work_dir.get(), entry);
  if (!written) log::warning("statistics: ", written.error().line(), ", ignoring");
}

// A plain name in a directory that may hold somebody else's images: a link is not followed and a FIFO not
// waited for. podman makes the file beforehand, so it may exist.
Result<Fd> open_plain(int dir, const std::string& name) {
  auto fd =
      TRY_CTX(open_at(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600),
              "log file");
  struct stat st {};
  if (fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode))
    return fail(Error(Code::kBadOption, cat("the log file ", name, " is not a regular file")).about(name));
  return fd;
}

// LXC gives a path that is relative to where it stands, CRIU takes it from the work directory: whichever exists.
Result<Fd> open_path(int work_dir, const std::string& path) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOCTTY;
  auto fd = open_at(work_dir, path, kFlags, 0600);
  if (!fd && fd.error().sys_errno() == ENOENT) fd = open_at(AT_FDCWD, path, kFlags, 0600);
  if (!fd) return fail(std::move(fd).error().context("log file"));
  return fd;
}

}  // namespace

Engine real_engine() {
  return {[](const Options& options, Notifier& notifier) { return checkpoint(options, notifier); },
          [](const Options& options, Notifier& notifier) { return restore(options, notifier); },
          [] { return kernel_features(); }, run_isolated};
}

Result<DumpStats> run_checkpoint(const Engine& engine, const Options& options, Notifier* client) {
  ScriptNotifier script(options);
  NotifierList notifiers;
  if (!options.action_script.empty()) notifiers.add(script);
  if (client) notifiers.add(*client);
  const DumpStats stats = TRY(engine.checkpoint(options, notifiers));
  save(options, stats);
  return stats;
}

Result<Restored> run_restore(const Engine& engine, const Options& options, Notifier* client) {
  ScriptNotifier script(options);
  NotifierList notifiers;
  std::optional<PidfileNotifier> pidfile;
  if (!options.pidfile.empty()) {
    pidfile.emplace(TRY(PidfileNotifier::create(options.pidfile)));
    notifiers.add(*pidfile);
  }
  if (!options.action_script.empty()) notifiers.add(script);
  if (client) notifiers.add(*client);
  const Restored restored = TRY(engine.restore(options, notifiers));
  if (pidfile) {
    auto written = pidfile->write(restored.root_pid);  // already there if post-restore carried the pid
    if (!written) log::warning("pidfile: ", written.error().line(), ", ignoring");
    pidfile->keep();
  }
  save(options, restored.stats);
  return restored;
}

std::string describe(const DumpStats& stats) {
  return cat("Displaying dump stats:\nFreezing time: ", stats.freezing_us, " us\nFrozen time: ", stats.frozen_us,
             " us\nMemory dump time: ", stats.memdump_us, " us\nMemory write time: ", stats.memwrite_us,
             " us\nMemory pages scanned: ", stats.pages_scanned, "\nMemory pages written: ", stats.pages_written, "\n");
}

std::string describe(const RestoreStats& stats) {
  return cat("Displaying restore stats:\nForking time: ", stats.forking_us, " us\nRestore time: ", stats.restore_us,
             " us\nPages restored: ", stats.pages_restored, "\n");
}

Result<Fd> open_log(const pb::criu_opts& opts, const Env& env, const Directories& dirs) {
  const auto level = static_cast<log::Level>(std::clamp(opts.log_level(), 1, 4));
  const std::string& name = opts.log_file();
  if (name.find('\0') != std::string::npos) return fail(Code::kBadOption, "the log file's name contains a NUL byte");
  Fd fd;
  if (env.door == Door::kRpc) {
    if (opts.has_log_file() && (name.empty() || name.find('/') != std::string::npos))
      return fail(Code::kBadOption, cat("log_file \"", name, "\" must be a plain name in the work directory"));
    fd = TRY(open_plain(dirs.work.get(), opts.has_log_file() ? name : "criu.log"));
  } else if (name.empty() || name == "-") {
    fd = TRY(dup_at_least(name.empty() ? 2 : 1));
  } else if (name.find('/') == std::string::npos) {
    fd = TRY(open_plain(dirs.work.get(), name));
  } else {
    fd = TRY(open_path(dirs.work.get(), name));
  }
  log::open(fd.get(), level);
  return fd;
}

}  // namespace stasis::cli
