// SPDX-License-Identifier: Apache-2.0
#include "integration/runtimes/runc.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "engine/base/io.h"
#include "engine/procfs/procfs.h"
#include "integration/config/json.h"

namespace stasis::integration::runtimes {
namespace runc {
namespace {

using config::Cursor;

// "bundle=/path" among config.labels.
std::string bundle_of(const std::vector<std::string>& labels) {
  for (const std::string& label : labels)
    if (label.starts_with("bundle=")) return label.substr(7);
  return {};
}

// Ids of the records under the roots, for the message; unreadable roots hold none.
std::vector<std::string> known_ids(const std::vector<std::string>& roots) {
  std::vector<std::string> out;
  for (const std::string& root : roots) {
    auto names = list_dir(AT_FDCWD, root);
    if (!names) continue;
    for (const std::string& name : *names)
      if (::access(cat(root, "/", name, "/state.json").c_str(), F_OK) == 0) out.push_back(name);
  }
  std::sort(out.begin(), out.end());
  return out;
}

Error no_such(const std::string& id, const std::vector<std::string>& roots) {
  std::vector<std::string> known = known_ids(roots);
  constexpr size_t kShown = 20;
  const size_t more = known.size() > kShown ? known.size() - kShown : 0;
  known.resize(known.size() - more);
  std::string text = known.empty() ? std::string("it knows none") : cat("it knows: ", join(known, ", "));
  if (more > 0) text += cat(" and ", more, " more");
  return Error(Code::kNoContainer,
               cat("runc has no container ", json_quote(id), " under ", join(roots, " or "), "; ", text))
      .about(cat("runc container ", id));
}

// A pid number says little: the process may have ended and the number been given away.
Result<void> check_alive(const Container& container, const procfs::Procfs& proc) {
  const auto gone = [&](std::string_view why) {
    return fail(Error(Code::kNoContainer, cat("the runc container ", container.id, " is not running: ", why))
                    .about(cat("pid ", container.pid)));
  };
  if (container.pid <= 0) return gone("it has no process");
  auto read = proc.stat(container.pid);
  if (!read) {
    if (read.error().sys_errno() == ENOENT || read.error().sys_errno() == ESRCH) return gone("its process is gone");
    return fail(std::move(read).error());
  }
  const procfs::Stat& stat = *read;
  if (stat.state == 'Z' || stat.state == 'X') return gone("its process has ended");
  if (stat.start_time != container.start_time) return gone("its process has ended and the pid now belongs to another");
  return {};
}

}  // namespace

Result<Container> parse_state(std::string_view json, const std::string& file) {
  const config::Node root = TRY(config::parse_json(json, file));
  const Cursor at(&root, file);
  Container out;
  out.runtime = "runc";
  out.id = TRY(TRY(at.get("id")).string());
  const Cursor pid = TRY(at.get("init_process_pid"));
  const int64_t number = TRY(pid.integer());
  if (number < 0 || number > 1 << 22) return fail(pid.error("not a process id"));  // PID_MAX_LIMIT
  out.pid = static_cast<pid_t>(number);
  out.start_time = TRY(TRY(at.get("init_process_start")).unsigned_integer());
  const Cursor config = TRY(at.get("config"));
  out.rootfs = TRY(TRY(config.get("rootfs")).string());
  out.bundle = bundle_of(TRY(TRY(config.get("labels")).strings()));
  for (auto& [key, value] : TRY(TRY(at.get("cgroup_paths")).string_map())) out.cgroup_dirs[key] = value;
  for (auto& [key, value] : TRY(TRY(at.get("namespace_paths")).string_map())) out.namespace_paths[key] = value;
  out.stdio = TRY(TRY(at.get("external_descriptors")).strings());
  return out;
}

std::vector<std::string> default_roots(uid_t euid, const char* xdg_runtime_dir) {
  std::vector<std::string> roots;
  if (euid != 0 && xdg_runtime_dir && *xdg_runtime_dir == '/') roots.push_back(cat(xdg_runtime_dir, "/runc"));
  roots.push_back("/run/runc");
  if (euid == 0 && xdg_runtime_dir && *xdg_runtime_dir == '/') roots.push_back(cat(xdg_runtime_dir, "/runc"));
  return roots;
}

bool valid_id(std::string_view id) {
  if (id.empty() || id.size() > 1024 || id == "." || id == "..") return false;
  return std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_+-.").contains(c);
  });
}

Result<Container> find(const std::string& id, const FindOptions& options) {
  const std::vector<std::string> roots = options.root.empty()
                                             ? default_roots(::geteuid(), std::getenv("XDG_RUNTIME_DIR"))
                                             : std::vector<std::string>{options.root};
  if (!valid_id(id)) return fail(no_such(id, roots));
  for (const std::string& root : roots) {
    const std::string file = cat(root, "/", id, "/state.json");
    auto text = read_file_at(AT_FDCWD, file, config::kMaxText);
    if (!text && text.error().sys_errno() == ENOENT) continue;
    if (!text) return fail(std::move(text).error());
    Container container = TRY(parse_state(*text, file));
    if (container.id != id)
      return fail(
          Error(Code::kBadDescription, cat(file, ": is about container ", json_quote(container.id))).about(file));
    container.state_dir = cat(root, "/", id);
    TRY(check_alive(container, options.proc.empty()
                                   ? TRY(procfs::Procfs::open())
                                   : procfs::Procfs(TRY(open_at(AT_FDCWD, options.proc, O_RDONLY | O_DIRECTORY)))));
    return container;
  }
  return fail(no_such(id, roots));
}

}  // namespace runc

Result<Container> find(const std::string& runtime, const std::string& id, const FindOptions& options) {
  if (runtime == "runc") return runc::find(id, options);
  return fail(Error(Code::kUnsupported, cat("the runtime ", json_quote(runtime), " is not known; only runc is"))
                  .about(runtime));
}

}  // namespace stasis::integration::runtimes
