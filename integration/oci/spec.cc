// SPDX-License-Identifier: Apache-2.0
#include "integration/oci/spec.h"

#include <algorithm>
#include <array>
#include <limits>
#include <set>

#include "integration/config/json.h"
#include "integration/config/text.h"

namespace stasis::integration::oci {
namespace {

using config::Cursor;

constexpr std::array<std::string_view, 8> kNamespaceTypes = {"pid",   "network", "ipc",    "uts",
                                                             "mount", "user",    "cgroup", "time"};

Result<uint32_t> small(const Cursor& at) {
  if (!at.present()) return uint32_t{0};
  const uint64_t value = TRY(at.unsigned_integer());
  if (value > std::numeric_limits<uint32_t>::max()) return fail(at.error("the id does not fit 32 bits"));
  return static_cast<uint32_t>(value);
}

Result<std::optional<uint32_t>> maybe_small(const Cursor& at) {
  if (!at.present()) return std::optional<uint32_t>();
  return std::optional(TRY(small(at)));
}

Result<std::vector<IdMapping>> parse_mappings(const Cursor& at) {
  std::vector<IdMapping> out;
  for (const Cursor& item : TRY(at.list()))
    out.push_back({TRY(small(TRY(item.get("containerID")))), TRY(small(TRY(item.get("hostID")))),
                   TRY(small(TRY(item.get("size"))))});
  return out;
}

Result<Capabilities> parse_capabilities(const Cursor& at) {
  Capabilities out;
  out.bounding = TRY(TRY(at.get("bounding")).strings());
  out.effective = TRY(TRY(at.get("effective")).strings());
  out.inheritable = TRY(TRY(at.get("inheritable")).strings());
  out.permitted = TRY(TRY(at.get("permitted")).strings());
  out.ambient = TRY(TRY(at.get("ambient")).strings());
  note_unknown(at, {"bounding", "effective", "inheritable", "permitted", "ambient"});
  return out;
}

Result<Rlimit> parse_rlimit(const Cursor& at) {
  Rlimit out;
  out.type = TRY(TRY(at.get("type")).string());
  out.soft = TRY(TRY(at.get("soft")).unsigned_integer());
  out.hard = TRY(TRY(at.get("hard")).unsigned_integer());
  return out;
}

Result<Process> parse_process(const Cursor& at) {
  Process out;
  if (!at.present()) return out;
  out.terminal = TRY(TRY(at.get("terminal")).boolean_or(false));
  out.args = TRY(TRY(at.get("args")).strings());
  out.env = TRY(TRY(at.get("env")).strings());
  out.cwd = TRY(TRY(at.get("cwd")).string_or("/"));
  const Cursor user = TRY(at.get("user"));
  out.uid = TRY(small(TRY(user.get("uid"))));
  out.gid = TRY(small(TRY(user.get("gid"))));
  for (const Cursor& group : TRY(TRY(user.get("additionalGids")).list())) out.groups.push_back(TRY(small(group)));
  out.capabilities = TRY(parse_capabilities(TRY(at.get("capabilities"))));
  for (const Cursor& limit : TRY(TRY(at.get("rlimits")).list())) out.rlimits.push_back(TRY(parse_rlimit(limit)));
  out.no_new_privileges = TRY(TRY(at.get("noNewPrivileges")).boolean_or(false));
  const Cursor console = TRY(at.get("consoleSize"));
  out.console_height = TRY(maybe_unsigned(TRY(console.get("height")))).value_or(0);
  out.console_width = TRY(maybe_unsigned(TRY(console.get("width")))).value_or(0);
  out.apparmor_profile = TRY(TRY(at.get("apparmorProfile")).string_or(""));
  out.selinux_label = TRY(TRY(at.get("selinuxLabel")).string_or(""));
  out.oom_score_adj = TRY(maybe_integer(TRY(at.get("oomScoreAdj"))));
  const Cursor priority = TRY(at.get("ioPriority"));
  out.io_priority_class = TRY(TRY(priority.get("class")).string_or(""));
  out.io_priority = TRY(maybe_integer(TRY(priority.get("priority"))));
  out.scheduler_policy = TRY(TRY(TRY(at.get("scheduler")).get("policy")).string_or(""));
  out.umask = TRY(maybe_small(TRY(user.get("umask"))));
  note_unknown(at, {"terminal", "args", "env", "cwd", "user", "capabilities", "rlimits", "noNewPrivileges",
                    "consoleSize", "apparmorProfile", "selinuxLabel", "oomScoreAdj", "commandLine", "ioPriority",
                    "scheduler", "execCPUAffinity"});
  return out;
}

Result<Mount> parse_mount(const Cursor& at) {
  Mount out;
  const Cursor destination = TRY(at.get("destination"));
  out.destination = TRY(destination.string());
  if (out.destination.empty() || out.destination[0] != '/')
    return fail(destination.error(cat("the mount destination ", json_quote(out.destination), " is not absolute")));
  out.type = TRY(TRY(at.get("type")).string_or(""));
  out.source = TRY(TRY(at.get("source")).string_or(""));
  out.options = TRY(TRY(at.get("options")).strings());
  out.uid_mappings = TRY(parse_mappings(TRY(at.get("uidMappings"))));
  out.gid_mappings = TRY(parse_mappings(TRY(at.get("gidMappings"))));
  note_unknown(at, {"destination", "type", "source", "options", "uidMappings", "gidMappings"});
  return out;
}

Result<Namespace> parse_namespace(const Cursor& at) {
  Namespace out;
  const Cursor type = TRY(at.get("type"));
  out.type = TRY(type.string());
  if (std::find(kNamespaceTypes.begin(), kNamespaceTypes.end(), out.type) == kNamespaceTypes.end())
    return fail(type.error(cat("unknown namespace type ", json_quote(out.type))));
  const Cursor path = TRY(at.get("path"));
  out.path = TRY(path.string_or(""));
  if (!out.path.empty() && out.path[0] != '/') return fail(path.error("the namespace path is not absolute"));
  return out;
}

Result<Device> parse_device(const Cursor& at) {
  Device out;
  out.path = TRY(TRY(at.get("path")).string());
  const Cursor type = TRY(at.get("type"));
  const std::string letter = TRY(type.string());
  if (letter.size() != 1 || !std::string_view("cbup").contains(letter[0]))
    return fail(type.error(cat("unknown device type ", json_quote(letter))));
  out.type = letter[0];
  const Cursor major = TRY(at.get("major")), minor = TRY(at.get("minor"));
  if (major.present()) out.major = TRY(major.integer());
  if (minor.present()) out.minor = TRY(minor.integer());
  out.mode = TRY(maybe_small(TRY(at.get("fileMode"))));
  out.uid = TRY(maybe_small(TRY(at.get("uid"))));
  out.gid = TRY(maybe_small(TRY(at.get("gid"))));
  return out;
}

Result<void> parse_linux(const Cursor& at, Spec& spec) {
  if (!at.present()) return {};
  std::set<std::string> seen;
  for (const Cursor& item : TRY(TRY(at.get("namespaces")).list())) {
    spec.namespaces.push_back(TRY(parse_namespace(item)));
    if (!seen.insert(spec.namespaces.back().type).second)
      return fail(item.error(cat("the namespace type ", spec.namespaces.back().type, " occurs twice")));
  }
  spec.cgroups_path = TRY(TRY(at.get("cgroupsPath")).string_or(""));
  spec.masked_paths = TRY(TRY(at.get("maskedPaths")).strings());
  spec.readonly_paths = TRY(TRY(at.get("readonlyPaths")).strings());
  spec.rootfs_propagation = TRY(TRY(at.get("rootfsPropagation")).string_or(""));
  for (const Cursor& item : TRY(TRY(at.get("devices")).list())) spec.devices.push_back(TRY(parse_device(item)));
  const Cursor resources = TRY(at.get("resources")), seccomp = TRY(at.get("seccomp"));
  TRY(resources.map());
  TRY(seccomp.map());
  if (resources.present()) spec.resources = TRY(parse_resources(resources));
  if (seccomp.present()) spec.seccomp = TRY(parse_seccomp(seccomp));
  spec.uid_mappings = TRY(parse_mappings(TRY(at.get("uidMappings"))));
  spec.gid_mappings = TRY(parse_mappings(TRY(at.get("gidMappings"))));
  for (auto& [key, value] : TRY(TRY(at.get("sysctl")).string_map())) spec.sysctls[key] = value;
  for (const auto& [clock, offset] : TRY(TRY(at.get("timeOffsets")).map()))
    spec.time_offsets[clock] = {TRY(maybe_integer(TRY(offset.get("secs")))).value_or(0),
                                TRY(small(TRY(offset.get("nanosecs"))))};
  spec.mount_label = TRY(TRY(at.get("mountLabel")).string_or(""));
  spec.personality = TRY(TRY(TRY(at.get("personality")).get("domain")).string_or(""));
  spec.rdt_clos_id = TRY(TRY(TRY(at.get("intelRdt")).get("closID")).string_or(""));
  note_unknown(at, {"namespaces", "cgroupsPath", "maskedPaths", "readonlyPaths", "rootfsPropagation", "devices",
                    "resources", "seccomp", "uidMappings", "gidMappings", "sysctl", "mountLabel", "intelRdt",
                    "personality", "timeOffsets", "netDevices"});
  return {};
}

Result<std::vector<Hook>> parse_hooks(const Cursor& at) {
  std::vector<Hook> out;
  for (const auto& [point, hooks] : TRY(at.map())) {
    for (const Cursor& item : TRY(hooks.list())) {
      Hook hook;
      hook.point = point;
      const Cursor path = TRY(item.get("path"));
      hook.path = TRY(path.string());
      if (!hook.path.starts_with("/")) return fail(path.error("the path of the hook is not absolute"));
      hook.args = TRY(TRY(item.get("args")).strings());
      hook.env = TRY(TRY(item.get("env")).strings());
      hook.timeout = TRY(maybe_integer(TRY(item.get("timeout"))));
      out.push_back(std::move(hook));
    }
  }
  return out;
}

}  // namespace

bool Mount::is_bind() const {
  if (type == "bind") return true;
  return std::any_of(options.begin(), options.end(),
                     [](const std::string& option) { return option == "bind" || option == "rbind"; });
}

const Namespace* Spec::find_namespace(std::string_view type) const {
  for (const Namespace& ns : namespaces)
    if (ns.type == type) return &ns;
  return nullptr;
}

Result<Spec> parse_spec(std::string_view json, const std::string& file) {
  const config::Node root = TRY(config::parse_json(json, file));
  const Cursor at(&root, file);
  Spec spec;
  TRY(at.map());  // the top level must be one
  if (!at.present()) return fail(at.error("expected a map, found null"));
  spec.version = TRY(TRY(at.get("ociVersion")).string_or(""));
  spec.process = TRY(parse_process(TRY(at.get("process"))));
  const Cursor root_at = TRY(at.get("root"));
  spec.root_path = TRY(TRY(root_at.get("path")).string_or(""));
  spec.root_readonly = TRY(TRY(root_at.get("readonly")).boolean_or(false));
  spec.hostname = TRY(TRY(at.get("hostname")).string_or(""));
  spec.domainname = TRY(TRY(at.get("domainname")).string_or(""));
  for (const Cursor& item : TRY(TRY(at.get("mounts")).list())) spec.mounts.push_back(TRY(parse_mount(item)));
  TRY(parse_linux(TRY(at.get("linux")), spec));
  spec.hooks = TRY(parse_hooks(TRY(at.get("hooks"))));
  for (auto& [key, value] : TRY(TRY(at.get("annotations")).string_map())) spec.annotations[key] = value;
  note_unknown(at, {"ociVersion", "process", "root", "hostname", "domainname", "mounts", "linux", "hooks",
                    "annotations", "solaris", "windows", "vm", "zos"});
  return spec;
}

Result<Spec> read_spec(const std::string& path) {
  const std::string text = TRY(config::read_text(path));
  return parse_spec(text, path);
}

}  // namespace stasis::integration::oci
