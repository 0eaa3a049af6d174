// SPDX-License-Identifier: Apache-2.0
#include "integration/runtimes/oci_runtime.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "integration/config/json.h"
#include "integration/config/text.h"
#include "integration/runtimes/places.h"

namespace stasis::integration::runtimes {
namespace {

using config::Cursor;

constexpr std::array<OciRuntime, 2> kRuntimes = {{
    {.name = "runc",
     .record = "state.json",
     .config = "",
     .id = "id",
     .pid = "init_process_pid",
     .start_time = "init_process_start",
     .bundle = "config.labels[bundle=]",
     .rootfs = "config.rootfs",
     .stdio = "external_descriptors",
     .cgroup_path = "",
     .cgroup_dirs = "cgroup_paths",
     .namespace_paths = "namespace_paths"},
    {.name = "crun",
     .record = "status",
     .config = "config.json",
     .id = "",
     .pid = "pid",
     .start_time = "process-start-time",
     .bundle = "bundle",
     .rootfs = "rootfs",
     .stdio = "external_descriptors",
     .cgroup_path = "cgroup-path",
     .cgroup_dirs = "",
     .namespace_paths = ""},
}};

Result<Cursor> go_to(Cursor at, std::string_view place) {
  for (std::string_view key : split(place, '.')) at = TRY(at.get(key));
  return at;
}

// "" when the record has no such place.
Result<std::string> text_at(const Cursor& root, std::string_view place) {
  if (place.empty()) return std::string();
  const size_t open = place.find('[');
  const Cursor at = TRY(go_to(root, place.substr(0, open)));
  if (open == std::string_view::npos) return at.string_or("");
  const std::string_view prefix = place.substr(open + 1, place.size() - open - 2);
  for (const std::string& item : TRY(at.strings()))
    if (item.starts_with(prefix)) return item.substr(prefix.size());
  return std::string();
}

// A list of strings, or, as crun has it, a string that holds one as JSON.
Result<std::vector<std::string>> list_at(const Cursor& root, std::string_view place, const std::string& file) {
  if (place.empty()) return std::vector<std::string>();
  const Cursor at = TRY(go_to(root, place));
  if (!at.present() || at.node()->kind() != config::Node::Kind::kString) return at.strings();
  const std::string text = TRY(at.string());
  if (text.empty()) return std::vector<std::string>();
  const config::Node inner = TRY(config::parse_json(text, cat(file, ": ", at.path())));
  return Cursor(&inner, cat(file, ": ", at.path())).strings();
}

Result<std::map<std::string, std::string>> map_at(const Cursor& root, std::string_view place) {
  std::map<std::string, std::string> out;
  if (place.empty()) return out;
  for (auto& [key, value] : TRY(TRY(go_to(root, place)).string_map())) out[key] = value;
  return out;
}

Result<pid_t> pid_at(const Cursor& root, std::string_view place) {
  const Cursor at = TRY(go_to(root, place));
  const int64_t number = TRY(at.integer());
  if (number < 0 || number > 1 << 22) return fail(at.error("not a process id"));  // PID_MAX_LIMIT
  return static_cast<pid_t>(number);
}

}  // namespace

std::span<const OciRuntime> oci_runtimes() { return kRuntimes; }

Result<Container> parse_record(const OciRuntime& runtime, std::string_view json, const std::string& file) {
  const config::Node root = TRY(config::parse_json(json, file));
  const Cursor at(&root, file);
  Container out;
  out.runtime = runtime.name;
  if (!runtime.id.empty()) out.id = TRY(TRY(go_to(at, runtime.id)).string());
  out.pid = TRY(pid_at(at, runtime.pid));
  if (!runtime.start_time.empty()) out.start_time = TRY(TRY(go_to(at, runtime.start_time)).unsigned_integer());
  out.bundle = TRY(text_at(at, runtime.bundle));
  out.rootfs = TRY(text_at(at, runtime.rootfs));
  if (!out.rootfs.empty() && !out.rootfs.starts_with("/")) out.rootfs = cat(out.bundle, "/", out.rootfs);
  out.cgroup_path = TRY(text_at(at, runtime.cgroup_path));
  out.cgroup_dirs = TRY(map_at(at, runtime.cgroup_dirs));
  out.namespace_paths = TRY(map_at(at, runtime.namespace_paths));
  out.stdio = TRY(list_at(at, runtime.stdio, file));
  return out;
}

std::vector<std::string> roots_of(const OciRuntime& runtime, const FindOptions& options) {
  if (!options.root.empty()) return {options.root};
  std::vector<std::string> roots = run_roots(runtime.name, ::geteuid(), std::getenv("XDG_RUNTIME_DIR"));
  if (!options.host.empty()) roots = {cat(options.host, "/run/", runtime.name)};
  return roots;
}

Result<std::optional<Container>> find_oci(const OciRuntime& runtime, const std::string& id,
                                          const FindOptions& options) {
  if (!valid_id(id)) return std::optional<Container>();
  for (const std::string& root : roots_of(runtime, options)) {
    const std::string directory = cat(root, "/", id), file = cat(directory, "/", runtime.record);
    auto text = config::read_text(file);
    if (!text && is_absent(text.error())) {
      // The runtime makes the directory first and removes it last.
      if (::access(directory.c_str(), F_OK) != 0) continue;
      return fail(Error(Code::kNoContainer,
                        cat(directory, " has no ", runtime.record, ": the container is being made or deleted"))
                      .about(directory));
    }
    if (!text) return fail(std::move(text).error());
    Container container = TRY(parse_record(runtime, *text, file));
    if (runtime.id.empty()) container.id = id;
    if (container.id != id)
      return fail(
          Error(Code::kBadDescription, cat(file, ": is about container ", json_quote(container.id))).about(file));
    container.state_dir = directory;
    TRY(check_alive(container, options));
    if (container.bundle.empty()) return fail(Error(Code::kBadDescription, cat(file, ": names no bundle")).about(file));
    container.config = cat(runtime.config.empty() ? container.bundle : directory, "/config.json");
    return std::optional(std::move(container));
  }
  return std::optional<Container>();
}

}  // namespace stasis::integration::runtimes
