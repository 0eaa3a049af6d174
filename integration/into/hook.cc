// SPDX-License-Identifier: Apache-2.0
#include "integration/into/hook.h"

#include <unistd.h>

#include "integration/config/json.h"
#include "integration/config/write_json.h"
#include "integration/runtimes/places.h"

namespace stasis::integration::into {
namespace {

using config::Cursor;
using config::Node;
using config::text;
using config::texts;
using config::with;

constexpr char kPath[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

Result<std::string> annotation(const Node& config, std::string_view key) {
  const Cursor all = TRY(Cursor(&config, "config.json").get("annotations"));
  const Cursor at = TRY(all.get(key));
  std::string value = TRY(at.string_or(""));
  if (!value.empty() && (!value.starts_with("/") || value.find('\0') != std::string::npos))
    return fail(Error(Code::kBadDescription,
                      cat("the annotation ", key, " is ", json_quote(value), ", which is not an absolute path"))
                    .about(std::string(key)));
  return value;
}

Node add_hook(const Node& hooks, std::string_view point, const std::string& self,
              const std::vector<std::string>& words) {
  std::vector<std::string> args = {"stasis", std::string(kHookCommand)};
  args.insert(args.end(), words.begin(), words.end());
  Node hook = Node::map({}, {});
  hook = with(hook, "path", text(self));
  hook = with(hook, "args", texts(args));
  hook = with(hook, "env", texts({kPath}));
  return with(hooks, point, config::appended(hooks.find(point), {hook}));
}

// "--root DIR" or "--root=DIR" among the words of a runtime.
std::string root_option(std::string_view cmdline) {
  const auto words = split(cmdline, '\0');
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--root" && i + 1 < words.size()) return std::string(words[i + 1]);
    if (words[i].starts_with("--root=")) return std::string(words[i].substr(7));
  }
  return {};
}

std::string variable(std::string_view environ, std::string_view name) {
  for (const auto entry : split(environ, '\0'))
    if (entry.starts_with(name) && entry.substr(name.size()).starts_with("="))
      return std::string(entry.substr(name.size() + 1));
  return {};
}

}  // namespace

Result<Wishes> wishes_of(const Node& config) {
  Wishes out;
  out.images = TRY(annotation(config, kImagesKey));
  out.work = TRY(annotation(config, kWorkKey));
  out.report = TRY(annotation(config, kReportKey));
  if (out.images.empty())
    return fail(
        Error(Code::kBadDescription, cat("there is no annotation ", kImagesKey, ", which says where the images are"))
            .about(std::string(kImagesKey)));
  return out;
}

Result<Node> hooked_config(const Node& config, const Program& program, const std::string& self, uint64_t capabilities,
                           bool each_start) {
  TRY(wishes_of(config));
  const Node& annotations = *config.find("annotations");
  if (annotations.find(kOriginalKey))
    return fail(Error(Code::kBadDescription,
                      "this description has the hooks of stasis already; start from the one that it was made of")
                    .about(std::string(kOriginalKey)));
  Node out = waiting_config(config, "", program, capabilities);
  Node hooks = config.find("hooks") ? *config.find("hooks") : Node::map({}, {});
  hooks = add_hook(hooks, "createRuntime", self, {"check"});
  std::vector<std::string> start = {"start"};
  if (each_start) start.push_back(cat("--", kEachStart));
  hooks = add_hook(hooks, "poststart", self, start);
  out = with(out, "hooks", std::move(hooks));
  return with(out, "annotations", with(annotations, kOriginalKey, text(config::write_json(config))));
}

Result<Node> original_of(const Node& hooked, const std::string& file) {
  const Cursor all = TRY(Cursor(&hooked, file).get("annotations"));
  const std::string json = TRY(TRY(all.get(kOriginalKey)).string());
  return config::parse_json(json, cat(file, ": ", kOriginalKey));
}

Result<HookState> parse_state(std::string_view json) {
  const std::string name = "the state on standard input";
  const Node root = TRY(config::parse_json(json, name));
  const Cursor at(&root, name);
  HookState out;
  const Cursor id = TRY(at.get("id")), bundle = TRY(at.get("bundle")), pid = TRY(at.get("pid"));
  out.id = TRY(id.string());
  if (!runtimes::valid_id(out.id)) return fail(id.error("not the name of a container"));
  out.bundle = TRY(bundle.string());
  if (!out.bundle.starts_with("/")) return fail(bundle.error("not an absolute path"));
  const int64_t number = TRY(pid.integer());
  if (number < 1 || number > 1 << 22) return fail(pid.error("not a process id"));
  out.pid = static_cast<pid_t>(number);
  return out;
}

Result<Record> find_record(const procfs::Procfs& proc, pid_t caller, const HookState& state) {
  const std::string given = root_option(TRY(proc.text(caller, "cmdline")));
  const std::string xdg = variable(TRY(proc.text(caller, "environ")), "XDG_RUNTIME_DIR");
  for (const Runtime& runtime : all_runtimes())
    for (const std::string& root : {given, runtime_root(runtime, xdg.c_str()), runtime_root(runtime, nullptr)}) {
      if (!root.starts_with("/")) continue;
      const std::string dir = cat(root, "/", state.id);
      if (::access(cat(dir, "/", runtime.record).c_str(), F_OK) != 0) continue;
      if (TRY(recorded_pid(runtime, dir)) == state.pid) return Record{&runtime, root, dir};
    }
  return fail(Error(Code::kNoContainer,
                    cat("neither crun nor runc has a record of the container ", state.id, " with pid ", state.pid))
                  .about(state.id));
}

}  // namespace stasis::integration::into
