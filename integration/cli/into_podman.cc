// SPDX-License-Identifier: Apache-2.0
#include "integration/cli/into_podman.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/cli/validate.h"
#include "engine/into.h"
#include "engine/janitor.h"
#include "engine/procfs/procfs.h"
#include "integration/into/hook.h"
#include "integration/into/stage.h"

namespace stasis::integration::cli {
namespace {

std::unexpected<Error> usage(std::string text) { return fail(Code::kUsage, std::move(text)); }

// podman makes the container, in a process that is not ours: only what can be told to it can be asked for.
Result<void> check_options(const Session& session) {
  if (!session.given("as") || session.request.words.empty())
    return usage("--into podman needs --as NAME, and behind -- the words of podman run: options, image, command");
  if (session.request.exec_cmd) return usage("--exec-cmd cannot be used together with --into podman");
  for (const auto& [name, values] : session.request.extra)
    if (name != "as" && name != "into" && name != "json")
      return usage(cat("--", name, " cannot be used together with --into podman"));
  pb::criu_opts rest = session.request.opts;
  rest.clear_images_dir();
  rest.clear_images_dir_fd();
  rest.clear_stasis_work_dir();
  rest.clear_stasis_restore_detached();
  rest.clear_log_level();
  if (rest.ByteSizeLong() != 0)
    return usage("--into podman takes --images-dir, --work-dir, --as and --detach, and none of the engine's options");
  return {};
}

Result<std::string> real_directory(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), ::free);
  if (!real) return fail_sys("find", path);
  return std::string(real.get());
}

// A hooks directory, and a pipe for how it ended.
class Surroundings {
 public:
  static Result<Surroundings> make() {
    Surroundings out;
    out.path_ = TRY(into::make_staging_directory());
    const procfs::Procfs proc = TRY(procfs::Procfs::open());
    const std::string self = TRY(proc.link(::getpid(), "exe"));
    TRY(write(out.path_ + "/stasis-restore.json",
              cat(R"({"version":"1.0.0","stages":["precreate"],"when":{"always":true},"hook":{"path":)",
                  json_quote(self), R"(,"args":["stasis",)", json_quote(into::kHookCommand), R"(,"precreate",)",
                  json_quote(cat("--", into::kEachStart)), "]}}")));
    if (::mkfifo(out.report().c_str(), 0600) != 0) return fail_sys("mkfifo", out.report());
    out.pipe_ = TRY(open_at(AT_FDCWD, out.report(), O_RDONLY | O_NONBLOCK));
    return out;
  }
  Surroundings(Surroundings&& other) noexcept : path_(std::exchange(other.path_, {})), pipe_(std::move(other.pipe_)) {}
  Surroundings& operator=(Surroundings&&) = delete;
  ~Surroundings() { remove(); }

  void remove() { into::remove_staging_directory(std::exchange(path_, {})); }
  const std::string& path() const { return path_; }
  std::string report() const { return path_ + "/report"; }
  std::string cid() const { return path_ + "/cid"; }
  // The line of the hook; empty if it never ran, or was killed. The hook holds its end as long as it works.
  Result<std::string> outcome() const {
    pollfd item{pipe_.get(), POLLIN, 0};
    char line[4096];
    ssize_t size;
    // A pipe that nobody has ever opened for writing is at its end too, but only read(2) says so.
    while ((size = ::read(pipe_.get(), line, sizeof line)) < 0 && (errno == EINTR || errno == EAGAIN))
      (void)::poll(&item, 1, -1);
    if (size < 0) return fail_sys("read", report());
    return std::string(trim({line, static_cast<size_t>(size)}));
  }

 private:
  Surroundings() = default;
  static Result<void> write(const std::string& path, const std::string& text) {
    const Fd file = TRY(open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL, 0600));
    return write_full(file.get(), text.data(), text.size(), path);
  }

  std::string path_;
  Fd pipe_;
};

// --hooks-dir takes the place of these.
std::vector<std::string> usual_hooks() {
  std::vector<std::string> out;
  for (const char* dir : {"/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d"})
    if (::access(dir, F_OK) == 0) out.insert(out.end(), {"--hooks-dir", dir});
  return out;
}

Result<std::vector<std::string>> podman_run(const Session& session, const Surroundings& at) {
  const pb::criu_opts& opts = session.request.opts;
  std::vector<std::string> words = {"podman"};
  const auto add = [&](std::initializer_list<std::string> more) { words.insert(words.end(), more); };
  for (const std::string& word : usual_hooks()) words.push_back(word);
  add({"--hooks-dir", at.path(), "run", "--name", *session.value("as"), "--cidfile", at.cid()});
  if (opts.stasis_restore_detached()) add({"--detach"});
  add({"--annotation", cat(into::kImagesKey, "=", TRY(real_directory(opts.images_dir())))});
  if (!opts.stasis_work_dir().empty())
    add({"--annotation", cat(into::kWorkKey, "=", TRY(real_directory(opts.stasis_work_dir())))});
  add({"--annotation", cat(into::kReportKey, "=", at.report())});
  words.insert(words.end(), session.request.words.begin(), session.request.words.end());
  return words;
}

// Its exit status. `quiet`: without standard output, which is an id that nobody asked for.
Result<int> execute(std::vector<std::string> words, bool quiet) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid < 0) return fail_sys("fork");
  if (pid == 0) {
    ::signal(SIGPIPE, SIG_DFL);
    const int null = quiet ? ::open("/dev/null", O_WRONLY) : -1;
    if (null >= 0) ::dup2(null, STDOUT_FILENO);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return fail_sys("wait for", words[0]);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return fail(Error(Code::kNotFound, "podman cannot be executed").about("podman"));
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

// Only what it has made: its id is in our file.
void forget(const Surroundings& at) {
  const auto id = read_file_at(AT_FDCWD, at.cid());
  if (!id || id->empty()) return;
  const auto removed = execute({"podman", "rm", "--force", "--time", "0", std::string(trim(*id))}, true);
  if (!removed || *removed != 0) log::warning("podman still has the container ", trim(*id), ", ignoring");
}

void report(const Session& session, std::string_view pid) {
  const std::string& name = *session.value("as");
  const std::string& images = session.request.opts.images_dir();
  if (session.json)
    std::printf("{\"id\":%s,\"pid\":%s,\"images_dir\":%s}\n", json_quote(name).c_str(), std::string(pid).c_str(),
                json_quote(images).c_str());
  else
    std::printf("restored from %s as %s of podman: pid %s\n", images.c_str(), name.c_str(), std::string(pid).c_str());
}

}  // namespace

Result<int> restore_into_podman(Session& session) {
  TRY(check_options(session));
  const pb::criu_opts& opts = session.request.opts;
  const bool detached = opts.stasis_restore_detached();
  {
    const auto directories = TRY(stasis::cli::open_directories(
        opts, stasis::cli::Env{stasis::cli::Action::kRestore, stasis::cli::Door::kStasis, 0}));
    TRY(stasis::into::check_images(directories.images.get()));
  }
  Surroundings at = TRY(Surroundings::make());
  const Janitor janitor = TRY(Janitor::start([&] { at.remove(); }));
  const int status = TRY(execute(TRY(podman_run(session, at)), detached));
  const std::string line = TRY(at.outcome());
  constexpr std::string_view kDone = "restored ";
  if (!line.starts_with(kDone) || (detached && status != 0)) {
    forget(at);
    return fail(
        Error(Code::kRestoreFailed,
              line.empty() ? cat("podman run ended with status ", status, " before anything was restored") : line)
            .about("podman"));
  }
  if (!detached) return status;
  report(session, std::string_view(line).substr(kDone.size()));
  return 0;
}

}  // namespace stasis::integration::cli
