// SPDX-License-Identifier: Apache-2.0
// stasis oci-restore: the hooks of a container that comes up restored. `precreate` is podman's (oci-hooks(5)), or is
// run once by who prepares a bundle; the description that it makes has the runtime run the other two.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <optional>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/cli/operations.h"
#include "engine/into.h"
#include "engine/janitor.h"
#include "engine/kernel/syscalls.h"
#include "integration/cli/restore_steps.h"
#include "integration/cli/session.h"
#include "integration/cli/target.h"
#include "integration/config/json.h"
#include "integration/config/write_json.h"
#include "integration/into/hook.h"
#include "integration/into/meeting.h"
#include "integration/into/stage.h"

namespace stasis::integration::cli {
namespace {

using config::Node;
using stasis::cli::Action;
using stasis::cli::Door;
using stasis::cli::Env;

// The container that a runtime is making, as the hook's standard input and the bundle tell.
struct Job {
  into::HookState state;
  Node original;
  oci::Spec spec;  // of `original`
  into::Wishes wishes;
};

Result<Job> read_job() {
  Job job;
  job.state = TRY(into::parse_state(TRY(read_all(STDIN_FILENO, config::kMaxText, "standard input"))));
  const std::string file = job.state.bundle + "/config.json";
  job.original = TRY(into::original_of(TRY(config::read_json(file)), file));
  job.spec = TRY(oci::parse_spec(config::write_json(job.original), file));
  job.wishes = TRY(into::wishes_of(job.original));
  return job;
}

Result<int> precreate(const Session& session) {
  const std::string name = "standard input", text = TRY(read_all(STDIN_FILENO, config::kMaxText, name));
  const Node config = TRY(config::parse_json(text, name));
  TRY(into::check_description(config, TRY(oci::parse_spec(text, name))));
  const procfs::Procfs proc = TRY(procfs::Procfs::open());
  const Node hooked =
      TRY(into::hooked_config(config, TRY(into::own_program()), TRY(proc.link(::getpid(), "exe")),
                              TRY(proc.status(::getpid())).cap_effective, session.given(into::kEachStart)));
  std::printf("%s\n", config::write_json(hooked).c_str());
  return 0;
}

Result<stasis::cli::Directories> open_directories(const into::Wishes& wishes, pb::criu_opts& opts, const Env& env) {
  opts.set_images_dir(wishes.images);
  opts.set_log_file("restore.log");
  if (!wishes.work.empty()) opts.set_stasis_work_dir(wishes.work);
  return stasis::cli::open_directories(opts, env);
}

constexpr Env kEnv{Action::kRestore, Door::kStasis, 0};

// createRuntime: a failure here is one of the runtime's, whichever it is.
Result<int> check(Session& session) {
  const Job job = TRY(read_job());
  TRY(into::check_bundle(job.original, job.spec, job.state.bundle));
  const auto directories = TRY(open_directories(job.wishes, session.opts(), kEnv));
  session.log = TRY(stasis::cli::open_log(session.opts(), kEnv, directories));
  TRY(stasis::into::check_images(directories.images.get()));
  return 0;
}

// Whoever started the container may wait for a line, as long as this is open; when there is nobody, it is not missed.
Fd open_report(const into::Wishes& wishes) {
  if (wishes.report.empty()) return {};
  Fd pipe(::open(wishes.report.c_str(), O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
  struct stat st {};
  if (!pipe || ::fstat(pipe.get(), &st) != 0 || !S_ISFIFO(st.st_mode)) return {};
  return pipe;
}

// The container, unless it is committed. Runtimes that see a failed hook kill it themselves; others do not look.
class Custody {
 public:
  Custody(const Job& job, into::Record record, Fd pidfd, bool forget)
      : id_(job.state.id), record_(std::move(record)), pidfd_(std::move(pidfd)), forget_(forget) {}
  Custody(const Custody&) = delete;
  ~Custody() {
    if (!committed_) undo();
  }
  void commit() { committed_ = true; }
  void undo() {
    (void)kernel::pidfd_send_signal(pidfd_.get(), SIGKILL);
    (void)kernel::pidfd_wait_exit(pidfd_.get(), -1);
    if (!forget_) return;
    if (auto r = into::call(*record_.runtime, record_.root, "/dev/null", {"delete", "--force", id_}); !r)
      log::warning("the container ", id_, " is left: ", r.error().message(), ", ignoring");
  }

 private:
  std::string id_;
  into::Record record_;
  Fd pidfd_;
  bool forget_;
  bool committed_ = false;
};

// A runtime that starts the container after its hooks waits for the hook's end, and for the end of its output.
Result<void> let_runtime_go_on() {
  const pid_t pid = ::fork();
  if (pid < 0) return fail_sys("fork");
  if (pid > 0) ::_exit(0);
  ::setsid();
  if (::chdir("/") != 0) return fail_sys("chdir");
  const Fd null = TRY(open_at(AT_FDCWD, "/dev/null", O_RDWR));
  for (const int fd : {0, 1, 2})
    if (::dup2(null.get(), fd) < 0) return fail_sys("dup2");
  return {};
}

// The description that the runtime is to remember, its filter too. Whoever runs `exec` from here on has no more rights
// than it gives.
Result<void> put_record_right(const Job& job, const into::Record& record, const into::Stage& stage, bool each_start) {
  TRY(into::give_back(*record.runtime, record.dir, job.state.bundle, job.original, each_start));
  if (!job.spec.seccomp) return {};
  const procfs::Procfs proc = TRY(procfs::Procfs::open());
  const Node waiting = into::waiting_config(job.original, job.state.bundle, TRY(into::own_program()),
                                            TRY(proc.status(::getpid())).cap_effective);
  return stage.copy_filter(job.original, waiting);
}

struct Prepared {
  Target target;
  std::vector<Fd> held;
  Options options;
};
Result<Prepared> prepare(Session& session, const Job& job, const into::Stage& stage) {
  pb::criu_opts& opts = session.opts();
  auto directories = TRY(open_directories(job.wishes, opts, kEnv));
  opts.set_stasis_restore_detached(true);
  TRY(stage.write_description(into::absolute_paths(job.original, job.state.bundle)));
  Prepared out;
  out.target = TRY(bundle_target(session, stage.path(), ""));
  leave_to_runtime(job.state.id, out.target.plan);
  out.held = TRY(plan_restore(session, out.target));
  session.log = TRY(stasis::cli::open_log(opts, kEnv, directories));
  out.options = TRY(stasis::cli::validate(opts, kEnv, std::move(directories)));
  return out;
}

// Everything before the runtime may go on.
Result<Prepared> make_ready(Session& session, const Job& job, const into::Record& record) {
  auto stage = TRY(into::Stage::make(*record.runtime, record.dir));
  const auto janitor = TRY(Janitor::start([&] { stage.remove(); }));
  auto prepared = TRY(prepare(session, job, stage));
  TRY(put_record_right(job, record, stage, session.given(into::kEachStart)));
  return prepared;
}

Result<Restored> restore_into(const into::Meeting& meeting, const Job& job, Prepared& prepared) {
  prepared.options.into = TRY(meeting.wait(into::joined_namespaces(job.spec)));
  return stasis::cli::run_restore(stasis::cli::real_engine(), prepared.options, nullptr);
}

Result<int> start_job(Session& session, const Job& job) {
  const procfs::Procfs proc = TRY(procfs::Procfs::open());
  const auto record = TRY(into::find_record(proc, ::getppid(), job.state));
  // runc 1.1 calls this hook before it starts the process, later ones and crun afterwards.
  const bool not_started = ::access(cat(record.dir, "/exec.fifo").c_str(), F_OK) == 0;
  std::optional<Custody> custody;
  // podman remembers its containers itself, and has the runtime forget them.
  const bool forget = !session.given(into::kEachStart);
  const auto take_over = [&]() -> Result<void> {
    custody.emplace(job, record, TRY(kernel::pidfd_open(job.state.pid)), forget);
    return {};
  };
  if (!not_started) TRY(take_over());
  auto prepared = TRY(make_ready(session, job, record));
  const auto meeting = TRY(into::Meeting::listen(job.state.pid));
  if (not_started) {
    TRY(let_runtime_go_on());
    TRY(take_over());
  }
  const auto janitor = TRY(Janitor::start([&] { custody->undo(); }));
  TRY(restore_into(meeting, job, prepared));
  custody->commit();
  return 0;
}

// poststart
Result<int> start(Session& session) {
  const Job job = TRY(read_job());
  const Fd report = open_report(job.wishes);
  auto status = start_job(session, job);
  const std::string line =
      status ? cat("restored ", job.state.pid, "\n") : cat(status.error().line().substr(0, 4000), "\n");
  if (report) (void)!::write(report.get(), line.data(), line.size());
  return status;
}

Result<int> run(Session& session) {
  const auto& words = session.request.words;
  const std::string stage = words.size() == 1 ? words[0] : "";
  if (stage == "precreate") return precreate(session);
  if (stage == "check") return check(session);
  if (stage == "start") return start(session);
  return fail(Code::kUsage, "which hook? precreate, check or start");
}

constexpr stasis::cli::OptionSpec kExtra[] = {
    {0, into::kEachStart, stasis::cli::Arg::kNone, false, stasis::cli::Support::kBuilt, 0, "", "",
     "the bundle is written anew for each start of the container, as podman does"},
};

}  // namespace

const Command& hook_command() {
  static constexpr Command kCommand{
      into::kHookCommand,
      "precreate [--each-start] <config.json >NEW",
      "have a runtime bring containers up restored",
      "The annotation io.stasis.restore says where the images are (io.stasis.restore.work: where restore.log goes).\n"
      "A bundle with the new description comes up restored, however often: crun run --bundle DIR NAME\n",
      0,
      kExtra,
      run,
  };
  return kCommand;
}

}  // namespace stasis::integration::cli
