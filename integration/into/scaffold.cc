// SPDX-License-Identifier: Apache-2.0
#include "integration/into/scaffold.h"

#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <memory>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"
#include "engine/procfs/procfs.h"
#include "integration/config/write_json.h"

namespace stasis::integration::into {
namespace {

using config::Node;
using config::text;
using config::texts;
using config::with;

// include/uapi/linux/capability.h, by number.
constexpr std::array<std::string_view, 41> kCapabilities = {"CHOWN",
                                                            "DAC_OVERRIDE",
                                                            "DAC_READ_SEARCH",
                                                            "FOWNER",
                                                            "FSETID",
                                                            "KILL",
                                                            "SETGID",
                                                            "SETUID",
                                                            "SETPCAP",
                                                            "LINUX_IMMUTABLE",
                                                            "NET_BIND_SERVICE",
                                                            "NET_BROADCAST",
                                                            "NET_ADMIN",
                                                            "NET_RAW",
                                                            "IPC_LOCK",
                                                            "IPC_OWNER",
                                                            "SYS_MODULE",
                                                            "SYS_RAWIO",
                                                            "SYS_CHROOT",
                                                            "SYS_PTRACE",
                                                            "SYS_PACCT",
                                                            "SYS_ADMIN",
                                                            "SYS_BOOT",
                                                            "SYS_NICE",
                                                            "SYS_RESOURCE",
                                                            "SYS_TIME",
                                                            "SYS_TTY_CONFIG",
                                                            "MKNOD",
                                                            "LEASE",
                                                            "AUDIT_WRITE",
                                                            "AUDIT_CONTROL",
                                                            "SETFCAP",
                                                            "MAC_OVERRIDE",
                                                            "MAC_ADMIN",
                                                            "SYSLOG",
                                                            "WAKE_ALARM",
                                                            "BLOCK_SUSPEND",
                                                            "AUDIT_READ",
                                                            "PERFMON",
                                                            "BPF",
                                                            "CHECKPOINT_RESTORE"};

std::string base_name(std::string_view path) { return std::string(path.substr(path.rfind('/') + 1)); }

std::unexpected<Error> refuse(Code code, std::string why, std::string about) {
  return fail(Error(code, std::move(why)).about(std::move(about)));
}

Node item(std::initializer_list<std::pair<std::string_view, Node>> entries) {
  Node out = Node::map({}, {});
  for (const auto& [key, value] : entries) out = with(out, key, value);
  return out;
}

Node bind(const std::string& source, const std::string& destination) {
  return item({{"destination", text(destination)},
               {"type", text("bind")},
               {"source", text(source)},
               {"options", texts({"bind", "ro", "nosuid", "nodev"})}});
}

Node number(uint64_t value) { return Node::number(std::to_string(value), {}); }

// Root with every capability that can be given: it makes tasks with chosen pids and any credentials.
Node waiting_process(const Node* old, const Program& program, uint64_t capabilities) {
  const std::string at = cat(kScaffold, "/");
  const Node all = texts(capability_names(capabilities)), none = texts({});
  Node out = item(
      {{"terminal", Node::boolean(false, {})},
       {"user", item({{"uid", number(0)}, {"gid", number(0)}})},
       {"args",
        texts({at + program.loader, "--library-path", kScaffold, at + program.binary, kWaitCommand, at + kSocket})},
       {"env", texts({"PATH=/"})},
       {"cwd", text("/")},
       {"capabilities",
        item({{"bounding", all}, {"effective", all}, {"permitted", all}, {"inheritable", none}, {"ambient", none}})},
       {"noNewPrivileges", Node::boolean(false, {})}});
  if (const Node* score = old ? old->find("oomScoreAdj") : nullptr) out = with(out, "oomScoreAdj", *score);
  return out;
}

Node absolute_mounts(const Node& mounts, const std::string& bundle) {
  std::vector<Node> out;
  for (const Node& mount : mounts.items()) {
    const Node* source = mount.find("source");
    const Node *type = mount.find("type"), *options = mount.find("options");
    bool is_bind = type && type->text() == "bind";
    if (options)
      for (const Node& option : options->items()) is_bind |= option.text() == "bind" || option.text() == "rbind";
    if (is_bind && source && !source->text().starts_with("/"))
      out.push_back(with(mount, "source", text(cat(bundle, "/", source->text()))));
    else
      out.push_back(mount);
  }
  return Node::list(std::move(out), {});
}

}  // namespace

std::vector<std::string> capability_names(uint64_t mask) {
  std::vector<std::string> out;
  for (size_t i = 0; i < kCapabilities.size(); ++i)
    if (mask >> i & 1) out.push_back(cat("CAP_", kCapabilities[i]));
  return out;
}

Result<Program> own_program() {
  std::vector<std::string> loaded;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        if (info->dlpi_name && info->dlpi_name[0] == '/')
          static_cast<std::vector<std::string>*>(data)->emplace_back(info->dlpi_name);
        return 0;
      },
      &loaded);
  Program out;
  out.binary = "stasis";
  out.parts.push_back({TRY(TRY(procfs::Procfs::open()).link(::getpid(), "exe")), out.binary});
  for (const std::string& path : loaded) {
    const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), ::free);
    if (!real) return fail_sys("find", path);
    const std::string name = base_name(path);
    if (name.starts_with("ld-linux") || name.starts_with("ld.so")) out.loader = name;
    out.parts.push_back({real.get(), name});
  }
  if (out.loader.empty())
    return refuse(Code::kUnsupported, "this program was not started by a dynamic loader that can be found", "loader");
  return out;
}

Result<void> check_description(const Node& config, const oci::Spec& spec) {
  if (spec.process.terminal)
    return refuse(Code::kUnsupportedFile, "a container with a terminal cannot be restored by a runtime yet",
                  "terminal");
  const Node* process = config.find("process");
  for (const char* key : {"apparmorProfile", "selinuxLabel"})
    if (const Node* label = process ? process->find(key) : nullptr; label && !label->text().empty())
      return refuse(Code::kUnsupported,
                    cat("the bundle has process.", key, ", which cannot be given back to the tasks"),
                    cat("process.", key));
  std::string type;
  for (const oci::Mount& mount : spec.mounts) {
    if (mount.destination == "/dev") type = mount.type;
    if (mount.destination == "/" || mount.destination.starts_with(kScaffold)) type.clear();
  }
  if (type != "tmpfs")
    return refuse(Code::kUnsupportedMount, "the bundle's /dev is not a tmpfs, and what is put there would stay",
                  "mount /dev");
  for (const char* kind : {"pid", "mount"})
    if (const auto* ns = spec.find_namespace(kind); !ns || !ns->path.empty())
      return refuse(Code::kUnsupportedNamespace, cat("the bundle has no ", kind, " namespace of its own"),
                    cat(kind, " namespace"));
  for (const char* kind : {"user", "time"})
    if (spec.find_namespace(kind))
      return refuse(Code::kUnsupportedNamespace, cat("the bundle has a ", kind, " namespace"), cat(kind, " namespace"));
  return {};
}

Result<void> check_bundle(const Node& config, const oci::Spec& spec, const std::string& bundle) {
  TRY(check_description(config, spec));
  const std::string rootfs = spec.root_path.starts_with("/") ? spec.root_path : cat(bundle, "/", spec.root_path);
  // Code of the container's own that would run in our process, with all its capabilities.
  const Fd root = TRY_CTX(open_at(AT_FDCWD, rootfs, O_PATH | O_DIRECTORY), "rootfs");
  if (kernel::open_path_in_root(root.get(), "/etc/ld.so.preload"))
    return refuse(Code::kUnsupported,
                  "the container has /etc/ld.so.preload, which would be loaded into the engine's task",
                  "/etc/ld.so.preload");
  return {};
}

unsigned long joined_namespaces(const oci::Spec& spec) {
  unsigned long flags = 0;
  for (const auto& [type, flag] : {std::pair<std::string_view, unsigned long>{"network", CLONE_NEWNET},
                                   {"ipc", CLONE_NEWIPC},
                                   {"uts", CLONE_NEWUTS},
                                   {"cgroup", CLONE_NEWCGROUP}})
    if (const auto* ns = spec.find_namespace(type); ns && !ns->path.empty()) flags |= flag;
  return flags;
}

Node absolute_paths(const Node& config, const std::string& bundle) {
  Node out = config;
  if (const Node* root = config.find("root"))
    if (const Node* path = root->find("path"); path && !path->text().starts_with("/"))
      out = with(out, "root", with(*root, "path", text(cat(bundle, "/", path->text()))));
  if (const Node* mounts = config.find("mounts")) out = with(out, "mounts", absolute_mounts(*mounts, bundle));
  return out;
}

Node waiting_config(const Node& config, const std::string& bundle, const Program& program, uint64_t capabilities) {
  Node out = bundle.empty() ? config : absolute_paths(config, bundle);
  out = with(out, "process", waiting_process(config.find("process"), program, capabilities));
  std::vector<Node> mounts = {item({{"destination", text(kScaffold)},
                                    {"type", text("tmpfs")},
                                    {"source", text("tmpfs")},
                                    {"options", texts({"nosuid", "nodev", "mode=700", "size=64k"})}})};
  for (const Part& part : program.parts) mounts.push_back(bind(part.source, cat(kScaffold, "/", part.name)));
  out = with(out, "mounts", config::appended(out.find("mounts"), std::move(mounts)));
  // The images have the filters; a second copy on top of them would be one too many.
  if (const Node* lin = out.find("linux")) out = with(out, "linux", config::without(*lin, "seccomp"));
  return out;
}

Node filter_config(const Node& config, const Node& waiting, const std::string& cgroup) {
  Node lin = waiting.find("linux") ? *waiting.find("linux") : Node::map({}, {});
  lin = with(config::without(lin, "resources"), "cgroupsPath", text(cgroup));
  if (const Node* old = config.find("linux"))
    if (const Node* seccomp = old->find("seccomp")) lin = with(lin, "seccomp", *seccomp);
  return config::without(with(waiting, "linux", std::move(lin)), "hooks");
}

}  // namespace stasis::integration::into
