// SPDX-License-Identifier: Apache-2.0
#include "integration/into/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"
#include "engine/procfs/procfs.h"
#include "integration/config/json.h"
#include "integration/config/write_json.h"
#include "integration/runtimes/places.h"

namespace stasis::integration::into {

struct Launch::State {
  const Runtime* runtime = nullptr;
  std::string id, bundle, state_dir;
  bool follow = false;
  bool has_seccomp = false;
  config::Node config;
  std::string config_text;
  unsigned long joined = 0;
  Program program;
  std::string staged;  // our bundle; empty: not made, or gone
  Fd socket;
  pid_t pid = 0;
  Fd pidfd;

  std::string parts() const { return staged + "/parts"; }
  std::string filter_bundle() const { return staged + "/filter"; }
  std::string filter_id() const { return staged.substr(staged.rfind('/') + 1); }
  std::string log() const { return staged + "/log"; }
  std::string mark() const { return staged + "/created"; }
  // Only what we made: the record names our bundle until it is put right, and then there is the mark.
  bool ours() const {
    if (::access(mark().c_str(), F_OK) == 0) return true;
    const auto record = read_file_at(AT_FDCWD, cat(state_dir, "/", runtime->record));
    return record && record->find(staged) != std::string::npos;
  }
  Result<void> remove(const std::string& name) const { return call(*runtime, log(), {"delete", "--force", name}); }
  std::string dir_of(const std::string& name) const {
    return cat(state_dir.substr(0, state_dir.rfind('/')), "/", name);
  }
  void remove_staged() {
    if (staged.empty()) return;
    for (const std::string& dir : {parts(), filter_bundle(), staged}) {
      if (auto names = list_dir(AT_FDCWD, dir))
        for (const std::string& name : *names) ::unlink(cat(dir, "/", name).c_str());
      ::rmdir(dir.c_str());
    }
    staged.clear();
  }
  void undo() {
    if (staged.empty()) return;
    if (follow && pid > 0) {
      // Our child: as a zombie it would keep the runtime waiting.
      ::kill(pid, SIGKILL);
      while (::waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) {
      }
    }
    if (::access(dir_of(filter_id()).c_str(), F_OK) == 0) (void)remove(filter_id());
    if (ours())
      if (auto r = remove(id); !r) log::warning("the container ", id, " is left: ", r.error().message(), ", ignoring");
    remove_staged();
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
  state->state_dir = cat(runtime_root(runtime, ::getenv("XDG_RUNTIME_DIR")), "/", id);
  if (::access(state->state_dir.c_str(), F_OK) == 0)
    return fail(
        Error(Code::kBadOption, cat(runtime.name, " has a container ", id, " already")).about(state->state_dir));
  const std::string file = bundle + "/config.json";
  state->config_text = TRY(read_file_at(AT_FDCWD, file, config::kMaxText));
  state->config = TRY(config::parse_json(state->config_text, file));
  const oci::Spec spec = TRY(oci::parse_spec(state->config_text, file));
  TRY(check_bundle(state->config, spec,
                   spec.root_path.starts_with("/") ? spec.root_path : cat(bundle, "/", spec.root_path)));
  state->has_seccomp = spec.seccomp.has_value();
  state->joined = joined_namespaces(spec);
  state->program = TRY(own_program());
  return Launch(std::move(state));
}

Launch::~Launch() {
  if (state_) state_->undo();
}

namespace {
Result<void> write_description(const std::string& bundle, const config::Node& config) {
  const std::string text = config::write_json(config);
  const Fd file = TRY(open_at(AT_FDCWD, bundle + "/config.json", O_WRONLY | O_CREAT | O_EXCL, 0600));
  return write_full(file.get(), text.data(), text.size(), "config.json");
}
}  // namespace

Result<void> Launch::stage() {
  State& s = *state_;
  const procfs::Procfs proc = TRY(procfs::Procfs::open());
  const uint64_t capabilities = TRY(proc.status(::getpid())).cap_effective;
  char place[] = "/run/stasis-into.XXXXXX";
  if (!::mkdtemp(place)) return fail_sys("make a directory", place);
  s.staged = place;
  if (::mkdir(s.parts().c_str(), 0700) != 0) return fail_sys("mkdir", s.parts());
  for (const Part& part : s.program.parts)
    TRY(open_at(AT_FDCWD, cat(s.parts(), "/", part.name), O_WRONLY | O_CREAT | O_EXCL, 0600));
  const config::Node waiting = waiting_config(s.config, s.bundle, s.program, s.parts(), capabilities);
  TRY(write_description(s.staged, waiting));
  if (s.has_seccomp) {
    if (::mkdir(s.filter_bundle().c_str(), 0700) != 0) return fail_sys("mkdir", s.filter_bundle());
    TRY(write_description(s.filter_bundle(), filter_config(s.config, waiting, cat("/", s.filter_id()))));
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = s.parts() + "/socket";
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  s.socket = Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!s.socket || ::bind(s.socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(s.socket.get(), 4) != 0)
    return fail_sys("listen at", path);
  return {};
}

// A container that is made and deleted: what the runtime's record of ours would say of the filter.
Result<void> Launch::copy_filter() {
  const State& s = *state_;
  TRY(call(*s.runtime, s.log(), {"create", "--bundle", s.filter_bundle(), s.filter_id()}));
  TRY(s.runtime->copy_seccomp(s.dir_of(s.filter_id()), s.state_dir));
  return s.remove(s.filter_id());
}

Result<void> Launch::make_container() {
  State& s = *state_;
  TRY(call(*s.runtime, s.log(), {"create", "--bundle", s.staged, s.id}));
  TRY(open_at(AT_FDCWD, s.mark(), O_WRONLY | O_CREAT, 0600));
  s.pid = TRY(recorded_pid(*s.runtime, s.state_dir));
  s.pidfd = TRY(kernel::pidfd_open(s.pid));
  // Before it is started: nobody shall `exec` with what the waiting process may do.
  TRY(s.runtime->restore_record(s.state_dir, s.staged, s.bundle, s.config_text));
  if (s.has_seccomp) TRY(copy_filter());
  return call(*s.runtime, s.log(), {"start", s.id});
}

Result<IntoTask> Launch::wait_for_task() {
  State& s = *state_;
  while (true) {
    pollfd items[] = {{s.socket.get(), POLLIN, 0}, {s.pidfd.get(), POLLIN, 0}};
    if (::poll(items, 2, -1) < 0 && errno != EINTR) return fail_sys("poll");
    if (items[0].revents) {
      Fd peer(::accept4(s.socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
      ucred who{};
      socklen_t size = sizeof who;
      if (!peer || ::getsockopt(peer.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) return fail_sys("accept");
      if (who.pid != s.pid) continue;  // somebody else of this host
      IntoTask task;
      task.pid = s.pid;
      task.pidfd = TRY(dup_at_least(s.pidfd.get()));
      task.socket = std::move(peer);
      task.joined = s.joined;
      task.scaffold = kScaffold;
      return task;
    }
    if (items[1].revents)
      return fail(Error(Code::kRestoreFailed,
                        "the first process of the runtime's container ended before it could be "
                        "used; can programs be executed in its /dev?")
                      .about(cat("pid ", s.pid)));
  }
}

Result<IntoTask> Launch::start() {
  State& s = *state_;
  if (s.follow && ::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return fail_sys("prctl(PR_SET_CHILD_SUBREAPER)");
  TRY(stage());
  janitor_.emplace(TRY(Janitor::start([&] {
    s.follow = false;
    s.undo();
  })));
  TRY(make_container());
  return wait_for_task();
}

void Launch::commit() {
  state_->remove_staged();
  janitor_.reset();
}

Result<void> Launch::forget() { return call(*state_->runtime, "/dev/null", {"delete", "--force", state_->id}); }

}  // namespace stasis::integration::into
