// SPDX-License-Identifier: Apache-2.0
#include "integration/into/launch.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/io.h"
#include "engine/procfs/procfs.h"
#include "integration/config/json.h"
#include "integration/into/meeting.h"
#include "integration/into/stage.h"
#include "integration/runtimes/places.h"

namespace stasis::integration::into {

struct Launch::State {
  const Runtime* runtime = nullptr;
  std::string id, bundle, state_dir, root;
  bool follow = false;
  bool has_seccomp = false;
  config::Node config;
  std::string config_text;
  unsigned long joined = 0;
  Program program;
  std::optional<Stage> stage;  // our bundle; removed: the container is no longer ours to delete
  std::optional<Meeting> meeting;

  std::string mark() const { return stage->path() + "/created"; }
  // Only what we made: the record names our bundle until it is put right, and then there is the mark.
  bool ours() const {
    if (::access(mark().c_str(), F_OK) == 0) return true;
    const auto record = read_file_at(AT_FDCWD, cat(state_dir, "/", runtime->record));
    return record && record->find(stage->path()) != std::string::npos;
  }
  void undo() {
    if (!stage || stage->path().empty()) return;
    if (follow && meeting) {
      // Our child: as a zombie it would keep the runtime waiting.
      ::kill(meeting->pid(), SIGKILL);
      while (::waitpid(meeting->pid(), nullptr, __WALL) < 0 && errno == EINTR) {
      }
    }
    if (ours())
      if (auto r = call(*runtime, root, stage->log(), {"delete", "--force", id}); !r)
        log::warning("the container ", id, " is left: ", r.error().message(), ", ignoring");
    stage->remove();
  }
};

Launch::Launch(std::unique_ptr<State> state) : state_(std::move(state)) {}
Launch::Launch(Launch&&) noexcept = default;

Result<Launch> Launch::plan(const Runtime& runtime, const std::string& id, const std::string& bundle, bool follow) {
  auto state = std::make_unique<State>();
  state->runtime = &runtime;
  state->id = id;
  state->bundle = bundle;
  state->follow = follow;
  if (!runtimes::valid_id(id))
    return fail(Error(Code::kBadOption, cat(json_quote(id), " is not a name for a container")).about("--as"));
  state->root = runtime_root(runtime, ::getenv("XDG_RUNTIME_DIR"));
  state->state_dir = cat(state->root, "/", id);
  if (::access(state->state_dir.c_str(), F_OK) == 0)
    return fail(
        Error(Code::kBadOption, cat(runtime.name, " has a container ", id, " already")).about(state->state_dir));
  const std::string file = bundle + "/config.json";
  state->config_text = TRY(read_file_at(AT_FDCWD, file, config::kMaxText));
  state->config = TRY(config::parse_json(state->config_text, file));
  const oci::Spec spec = TRY(oci::parse_spec(state->config_text, file));
  TRY(check_bundle(state->config, spec, bundle));
  state->has_seccomp = spec.seccomp.has_value();
  state->joined = joined_namespaces(spec);
  state->program = TRY(own_program());
  return Launch(std::move(state));
}

Launch::~Launch() {
  if (state_) state_->undo();
}

Result<void> Launch::make_container() {
  State& s = *state_;
  const procfs::Procfs proc = TRY(procfs::Procfs::open());
  const config::Node waiting =
      waiting_config(s.config, s.bundle, s.program, TRY(proc.status(::getpid())).cap_effective);
  TRY(s.stage->write_description(waiting));
  TRY(call(*s.runtime, s.root, s.stage->log(), {"create", "--bundle", s.stage->path(), s.id}));
  TRY(open_at(AT_FDCWD, s.mark(), O_WRONLY | O_CREAT, 0600));
  s.meeting = TRY(Meeting::listen(TRY(recorded_pid(*s.runtime, s.state_dir))));
  // Before it is started: nobody shall `exec` with what the waiting process may do.
  TRY(s.runtime->restore_record(s.state_dir, s.stage->path(), s.bundle, s.config_text));
  if (s.has_seccomp) TRY(s.stage->copy_filter(s.config, waiting));
  return call(*s.runtime, s.root, s.stage->log(), {"start", s.id});
}

Result<IntoTask> Launch::start() {
  State& s = *state_;
  if (s.follow && ::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return fail_sys("prctl(PR_SET_CHILD_SUBREAPER)");
  s.stage.emplace(TRY(Stage::make(*s.runtime, s.state_dir)));
  janitor_.emplace(TRY(Janitor::start([&] {
    s.follow = false;
    s.undo();
  })));
  TRY(make_container());
  return s.meeting->wait(s.joined);
}

void Launch::commit() {
  state_->stage->remove();
  janitor_.reset();
}

Result<void> Launch::forget() {
  return call(*state_->runtime, state_->root, "/dev/null", {"delete", "--force", state_->id});
}

}  // namespace stasis::integration::into
