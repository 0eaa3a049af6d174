// SPDX-License-Identifier: Apache-2.0
// stasis checkpoint
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "engine/base/io.h"
#include "engine/cli/operations.h"
#include "integration/cli/progress.h"
#include "integration/cli/session.h"
#include "integration/cli/target.h"
#include "integration/plan_options.h"

namespace stasis::integration::cli {
namespace {

using stasis::cli::Action;
using stasis::cli::Door;
using stasis::cli::Env;

// The images directory, made when missing; one that we made goes again when nothing came of it.
class ImagesDir {
 public:
  static Result<ImagesDir> prepare(const std::string& path, bool replace) {
    ImagesDir dir;
    if (path.empty()) return fail(Code::kUsage, "say where the images go: --images-dir DIR");
    if (::mkdir(path.c_str(), 0700) == 0) {
      dir.made_ = path;
      return dir;
    }
    if (errno != EEXIST) return fail_sys(Code::kImageDir, "create the images directory", path);
    auto names = list_dir(AT_FDCWD, path);
    if (!names) return fail(std::move(names).error().with_code(Code::kImageDir));
    // The log of an attempt that failed is not in the way of the next.
    const bool empty = std::ranges::all_of(*names, [](const std::string& name) { return name.ends_with(".log"); });
    if (!empty && !replace)
      return fail(
          Error(Code::kImageDir, cat("the images directory ", path, " is not empty; --force replaces a checkpoint"))
              .about(path));
    return dir;
  }
  ImagesDir(ImagesDir&& other) noexcept : made_(std::exchange(other.made_, {})) {}
  ImagesDir& operator=(ImagesDir&&) = delete;
  ~ImagesDir() {
    if (!made_.empty()) ::rmdir(made_.c_str());  // holds nothing, or stays: both are right
  }
  void keep() { made_.clear(); }
  // Of an engine that does not take back what it wrote; only logs were there before, and stay.
  static void clear(int directory) {
    auto names = list_dir(directory, ".");
    if (!names) return;
    for (const std::string& name : *names)
      if (!name.ends_with(".log")) (void)::unlinkat(directory, name.c_str(), 0);
  }

 private:
  ImagesDir() = default;
  std::string made_;
};

// runc wants to know at restore what its container's stdio was.
Result<void> write_descriptors(const Options& options, const std::vector<std::string>& stdio) {
  Fd file = TRY(open_at(options.images_dir.get(), kDescriptorsFile, O_WRONLY | O_CREAT | O_TRUNC, 0600));
  const std::string text = descriptors_json(stdio);
  return write_full(file.get(), text.data(), text.size(), kDescriptorsFile);
}

void report(const Session& session, const Target& target, const Options& options, const DumpStats& stats,
            uint64_t total_us) {
  if (session.json) {
    std::printf(
        "{\"pid\":%d,\"images_dir\":%s,\"total_us\":%llu,\"freezing_us\":%u,\"frozen_us\":%u,\"memdump_us\":%u,"
        "\"memwrite_us\":%u,\"pages_scanned\":%llu,\"pages_written\":%llu,\"left_running\":%s}\n",
        static_cast<int>(options.pid), json_quote(options.images_path).c_str(),
        static_cast<unsigned long long>(total_us), stats.freezing_us, stats.frozen_us, stats.memdump_us,
        stats.memwrite_us, static_cast<unsigned long long>(stats.pages_scanned),
        static_cast<unsigned long long>(stats.pages_written), options.leave_running ? "true" : "false");
    return;
  }
  std::printf("checkpoint of %s: %s, frozen %s, %llu pages, images in %s\n", target.title.c_str(),
              duration_text(total_us).c_str(), duration_text(stats.frozen_us).c_str(),
              static_cast<unsigned long long>(stats.pages_written), options.images_path.c_str());
  const std::string& runtime = target.plan.runtime;
  if (!options.leave_running && (runtime == "runc" || runtime == "crun"))
    std::printf("%s still lists it as stopped; `%s delete %s` forgets it\n", runtime.c_str(), runtime.c_str(),
                target.plan.id.c_str());
}

Result<int> run(Session& session) {
  TRY(at_most_words(session, 1));
  const std::string* id = session.request.words.empty() ? nullptr : &session.request.words[0];
  Target target = TRY(running_target(session, id));
  pb::criu_opts& opts = session.opts();
  TRY(absorb_options(opts, PlanFor::kDump, target.host, target.plan));
  const std::vector<Fd> held = TRY(plan_to_options(target.plan, PlanFor::kDump, target.host, opts));
  opts.set_notify_scripts(true);
  const auto engine = TRY(external_engine(session, target.plan));
  if (engine && opts.stasis_replace_images())  // what it fails to write would be taken away with what was there
    return fail(
        Error(Code::kUnsupportedOption, "--force cannot be given to another engine (--engine)").about("--force"));
  const Env env{Action::kDump, Door::kStasis, 0};
  TRY(stasis::cli::convert(opts, env));  // before a directory is made for it
  ImagesDir images = TRY(ImagesDir::prepare(opts.images_dir(), opts.stasis_replace_images()));
  stasis::cli::Directories directories = TRY(stasis::cli::open_directories(opts, env));
  session.log = TRY(stasis::cli::open_log(opts, env, directories));
  const Options options = TRY(stasis::cli::validate(opts, env, std::move(directories)));
  Progress progress(cat("checkpoint of ", target.title), session.json, nullptr);
  bool described = false;
  if (!target.plan.stdio.empty())
    progress.on("post-dump", [&](pid_t, int) {
      described = true;
      return write_descriptors(options, target.plan.stdio);
    });
  Result<DumpStats> stats = engine ? engine->checkpoint(opts, options, target.host.hierarchies, progress)
                                   : stasis::cli::run_checkpoint(stasis::cli::real_engine(), options, &progress);
  progress.clear();
  if (!stats && engine) ImagesDir::clear(options.images_dir.get());
  if (!stats) {
    if (described) ::unlinkat(options.images_dir.get(), kDescriptorsFile, 0);
    return fail(std::move(stats).error());
  }
  images.keep();
  report(session, target, options, *stats, progress.elapsed_us());
  return 0;
}

constexpr stasis::cli::OptionSpec kExtra[] = {kJsonOption,   kRuntimeOption, kRuntimeRootOption,
                                              kPolicyOption, kPidOption,     kEngineOption};

}  // namespace

const Command& checkpoint_command() {
  static constexpr Command kCommand{
      "checkpoint",
      "[--runtime NAME] ID | --pid PID | --plan FILE  --images-dir DIR [OPTION]...",
      "write a running container, or a process tree, to an images directory",
      "The directory is created when it is missing (its parent must exist) and must be empty unless\n"
      "--force is given. The tasks end unless --leave-running is given; runc and crun then still list the\n"
      "container as stopped until told to delete it. Cgroups and their limits are recorded; `stasis restore`\n"
      "applies them if told to. ID may be a container of runc, crun, podman (name or id) or LXC.\n"
      "A container that cannot be checkpointed is refused before anything is stopped and runs on.\n",
      stasis::cli::kDump,
      kExtra,
      run,
      true,
  };
  return kCommand;
}

}  // namespace stasis::integration::cli
