// SPDX-License-Identifier: Apache-2.0
#include "integration/into/runtime.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "engine/base/io.h"
#include "integration/config/json.h"
#include "integration/config/write_json.h"
#include "integration/into/hook.h"
#include "integration/into/scaffold.h"

namespace stasis::integration::into {
namespace {

using config::Cursor;
using config::Node;

// By rename, so that nobody reads half a record.
Result<void> replace_file(const std::string& path, const std::string& text) {
  const std::string fresh = path + ".stasis";
  struct stat st {};
  const mode_t mode = ::stat(path.c_str(), &st) == 0 ? st.st_mode & 0777 : 0600;
  Fd file = TRY(open_at(AT_FDCWD, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode));
  TRY(write_full(file.get(), text.data(), text.size(), fresh));
  if (::rename(fresh.c_str(), path.c_str()) != 0) return fail_sys("rename", path);
  return {};
}

Result<void> copy_crun_seccomp(const std::string& from_dir, const std::string& to_dir) {
  const std::string text = TRY(read_file_at(AT_FDCWD, from_dir + "/seccomp.bpf"));
  const std::string path = to_dir + "/seccomp.bpf";
  const Fd file = TRY(open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600));
  return write_full(file.get(), text.data(), text.size(), path);
}

// crun reads the description for `exec` and for the hooks from its own copy, the bundle's name from the record.
Result<void> restore_crun(const std::string& state_dir, const std::string&, const std::string& bundle,
                          const std::string& original_text) {
  TRY(replace_file(state_dir + "/config.json", original_text));
  const std::string file = state_dir + "/status";
  const Node record = TRY(config::read_json(file));
  return replace_file(file, config::write_json(config::with(record, "bundle", config::text(bundle))));
}

Result<void> copy_runc_seccomp(const std::string& from_dir, const std::string& to_dir) {
  const std::string source = from_dir + "/state.json", target = to_dir + "/state.json";
  const Node from = TRY(config::read_json(source)), to = TRY(config::read_json(target));
  const Node *from_config = from.find("config"), *to_config = to.find("config");
  const Node* seccomp = from_config ? from_config->find("seccomp") : nullptr;
  if (!seccomp || !to_config)
    return fail(Error(Code::kBadDescription, cat(source, ": no config.seccomp")).about(source));
  return replace_file(target,
                      config::write_json(config::with(to, "config", config::with(*to_config, "seccomp", *seccomp))));
}

Node capabilities_of(const oci::Capabilities& c) {
  Node out = Node::map({}, {});
  for (const auto& [key, list] : {std::pair<std::string_view, const std::vector<std::string>*>{"Bounding", &c.bounding},
                                  {"Effective", &c.effective},
                                  {"Inheritable", &c.inheritable},
                                  {"Permitted", &c.permitted},
                                  {"Ambient", &c.ambient}})
    out = config::with(out, key, config::texts(*list));
  return out;
}

// runc's `exec` takes the process from the bundle, which its record names; what that leaves out, from the record.
Result<void> restore_runc(const std::string& state_dir, const std::string& staged, const std::string& bundle,
                          const std::string& original_text) {
  const oci::Spec spec = TRY(oci::parse_spec(original_text, bundle + "/config.json"));
  const std::string file = state_dir + "/state.json";
  const Node record = TRY(config::read_json(file));
  const Node* old = record.find("config");
  const Node* labels = old ? old->find("labels") : nullptr;
  if (!labels) return fail(Error(Code::kBadDescription, cat(file, ": no config.labels")).about(file));
  std::vector<std::string> changed;
  for (const Node& label : labels->items()) {
    if (label.text().starts_with(cat(kOriginalKey, "="))) continue;
    changed.push_back(label.text() == cat("bundle=", staged) ? cat("bundle=", bundle) : label.text());
  }
  Node config = config::with(*old, "labels", config::texts(changed));
  config = config::with(config, "capabilities", capabilities_of(spec.process.capabilities));
  config = config::with(config, "no_new_privileges", Node::boolean(spec.process.no_new_privileges, {}));
  return replace_file(file, config::write_json(config::with(record, "config", std::move(config))));
}

constexpr std::array<Runtime, 2> kRuntimes = {{
    {"crun", "status", "pid", true, copy_crun_seccomp, restore_crun},
    {"runc", "state.json", "init_process_pid", false, copy_runc_seccomp, restore_runc},
}};

std::string tail_of(const std::string& log) {
  const auto text = read_file_at(AT_FDCWD, log);
  if (!text) return {};
  const auto rows = lines(*text);
  for (size_t i = rows.size(); i-- > 0;)
    if (!trim(rows[i]).empty()) return std::string(trim(rows[i]).substr(0, 400));
  return {};
}

}  // namespace

std::span<const Runtime> all_runtimes() { return kRuntimes; }

Result<void> give_back(const Runtime& runtime, const std::string& state_dir, const std::string& bundle,
                       const Node& original, bool write_bundle) {
  const std::string text = config::write_json(original);
  if (write_bundle) TRY(replace_file(bundle + "/config.json", text));
  if (write_bundle || runtime.keeps_description) return runtime.restore_record(state_dir, bundle, bundle, text);
  const std::string absolute = config::write_json(absolute_paths(original, bundle));
  TRY(replace_file(state_dir + "/config.json", absolute));
  return runtime.restore_record(state_dir, bundle, state_dir, absolute);
}

Result<const Runtime*> find_runtime(std::string_view name) {
  for (const Runtime& runtime : kRuntimes)
    if (runtime.name == name) return &runtime;
  const std::string about(name);
  if (name == "podman")
    return fail(
        Error(Code::kUnsupported, "podman makes its containers from its own store, not from a bundle").about(about));
  return fail(Error(Code::kUnsupported, cat("the runtime ", json_quote(name), " is not known; crun and runc are"))
                  .about(about));
}

std::string runtime_root(const Runtime& runtime, const char* xdg_runtime_dir) {
  // crun looks there for everybody, runc only without root.
  if (runtime.name == "crun" && xdg_runtime_dir && *xdg_runtime_dir == '/') return cat(xdg_runtime_dir, "/crun");
  return cat("/run/", runtime.name);
}

Result<void> call(const Runtime& runtime, const std::string& root, const std::string& log,
                  const std::vector<std::string>& words) {
  std::vector<std::string> all = {std::string(runtime.name), "--root", root, "--log", log};
  all.insert(all.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& word : all) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid(), pid = ::fork();
  if (pid < 0) return fail_sys("fork");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    ::signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return fail_sys("wait for", runtime.name);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return fail(Error(Code::kNotFound, cat(runtime.name, " cannot be executed")).about(std::string(runtime.name)));
  const std::string said = tail_of(log);
  return fail(Error(Code::kRestoreFailed, cat(join(all, " "), " failed", said.empty() ? "" : ": ", said))
                  .about(std::string(runtime.name)));
}

Result<pid_t> recorded_pid(const Runtime& runtime, const std::string& state_dir) {
  const std::string file = cat(state_dir, "/", runtime.record);
  const Node record = TRY(config::read_json(file));
  const Cursor at(&record, file);
  const Cursor field = TRY(at.get(runtime.pid_field));
  const int64_t pid = TRY(field.integer());
  if (pid < 1 || pid > 1 << 22) return fail(field.error("not a process id"));
  return static_cast<pid_t>(pid);
}

}  // namespace stasis::integration::into
