// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/option_table.h"

#include <algorithm>
#include <climits>

#include "engine/base/strings.h"

namespace stasis::cli {
namespace {

using O = pb::criu_opts;

std::unexpected<Error> bad(std::string text) { return fail(Code::kBadOption, std::move(text)); }

template <auto Set>
Result<void> flag(Request& r, std::string_view, bool on) {
  (r.opts.*Set)(on);
  return {};
}

template <auto Mutable>
Result<void> text(Request& r, std::string_view value, bool) {
  *(r.opts.*Mutable)() = value;
  return {};
}

template <google::protobuf::RepeatedPtrField<std::string>* (O::*Mutable)()>  // spelt out: it is overloaded
Result<void> list(Request& r, std::string_view value, bool) {
  *(r.opts.*Mutable)()->Add() = value;
  return {};
}

template <auto Set, class Int, Int kMin>
Result<void> number(Request& r, std::string_view value, bool) {
  const auto parsed = parse_int<Int>(value);
  if (!parsed || *parsed < kMin) return bad(cat("\"", value, "\" is not a number of at least ", kMin));
  (r.opts.*Set)(*parsed);
  return {};
}

template <bool Request::*Member, bool kOn = true>
Result<void> local(Request& r, std::string_view, bool on) {
  r.*Member = on == kOn;
  return {};
}

Result<void> nothing(Request&, std::string_view, bool) { return {}; }

Result<void> set_images_dir(Request& r, std::string_view value, bool) {
  r.opts.set_images_dir(std::string(value));
  r.opts.set_images_dir_fd(-1);  // the later word wins over a descriptor named by an RPC request
  return {};
}

Result<void> set_work_dir(Request& r, std::string_view value, bool) {
  r.opts.set_stasis_work_dir(std::string(value));
  r.opts.clear_work_dir_fd();
  return {};
}

Result<void> set_verbosity(Request& r, std::string_view value, bool) {
  if (value.empty()) {
    r.verbosity += 1;
  } else if (value.find_first_not_of('v') == std::string_view::npos) {
    r.verbosity += static_cast<int>(value.size()) + 1;  // "-vvv" arrives as -v with "vv"
  } else if (const auto level = parse_int<int>(value); level && *level >= 0) {
    r.verbosity = *level;
  } else {
    return bad(cat("\"", value, "\" is not a log level"));
  }
  r.opts.set_log_level(std::min(r.verbosity, 4));
  return {};
}

Result<void> set_ext_unix_sk(Request& r, std::string_view value, bool on) {
  r.opts.set_ext_unix_sk(on);
  if (value.empty()) return {};
  const auto inode = parse_int<uint32_t>(value);
  if (!inode) return bad(cat("\"", value, "\" is not a socket inode"));
  r.opts.add_unix_sk_ino()->set_inode(*inode);
  return {};
}

Result<void> set_page_server(Request& r, std::string_view, bool on) {
  if (on) {
    r.opts.mutable_ps();
  } else {
    r.opts.clear_ps();
  }
  return {};
}

Result<void> set_ps_address(Request& r, std::string_view value, bool) {
  r.opts.mutable_ps()->set_address(std::string(value));
  return {};
}

Result<void> set_ps_port(Request& r, std::string_view value, bool) {
  const auto port = parse_int<uint16_t>(value);
  if (!port || *port == 0) return bad(cat("\"", value, "\" is not a port"));
  r.opts.mutable_ps()->set_port(*port);
  return {};
}

Result<void> set_ps_socket(Request& r, std::string_view value, bool) {
  const auto fd = parse_int<int>(value);
  if (!fd || *fd < 0) return bad(cat("\"", value, "\" is not a descriptor"));
  r.opts.mutable_ps()->set_fd(*fd);
  return {};
}

Result<void> add_veth_pair(Request& r, std::string_view value, bool) {
  const size_t eq = value.find('=');
  if (eq == 0 || eq == std::string_view::npos || eq + 1 == value.size())
    return bad(cat("\"", value, "\" is not INNER=OUTER"));
  auto* pair = r.opts.add_veths();
  pair->set_if_in(std::string(value.substr(0, eq)));
  pair->set_if_out(std::string(value.substr(eq + 1)));
  return {};
}

Result<void> set_cpu_cap(Request& r, std::string_view value, bool) {
  static constexpr std::pair<std::string_view, uint32_t> kNames[] = {{"none", 0}, {"fpu", 1},   {"cpu", 2},
                                                                     {"ins", 4},  {"image", 8}, {"all", UINT32_MAX}};
  uint32_t bits = value.empty() ? UINT32_MAX : 0;
  for (std::string_view word : split(value, ',')) {
    if (value.empty()) break;
    const bool off = word.starts_with('^');
    if (off) word.remove_prefix(1);
    bool known = false;
    for (const auto& [name, bit] : kNames) {
      if (name != word) continue;
      bits = off ? bits & ~bit : bits | bit;
      known = true;
    }
    if (!known) return bad(cat("\"", word, "\" is not one of none, fpu, cpu, ins, image, all"));
  }
  r.opts.set_cpu_cap(bits);
  return {};
}

Result<void> set_config(Request& r, std::string_view value, bool) {
  r.config_file = std::string(value);
  return {};
}

Result<void> add_feature(Request& r, std::string_view value, bool) {
  r.features.emplace_back(value);
  return {};
}

Result<void> add_ext_mount(Request& r, std::string_view value, bool) {
  if (value == "auto") {
    r.opts.set_auto_ext_mnt(true);
    return {};
  }
  const size_t colon = value.find(':');
  if (colon == 0 || colon == std::string_view::npos) return bad(cat("\"", value, "\" is not KEY:VALUE or auto"));
  auto* map = r.opts.add_ext_mnt();
  map->set_key(std::string(value.substr(0, colon)));
  map->set_val(std::string(value.substr(colon + 1)));
  return {};
}

Result<void> set_manage_cgroups(Request& r, std::string_view value, bool) {
  static constexpr std::pair<std::string_view, pb::criu_cg_mode> kModes[] = {
      {"ignore", pb::IGNORE}, {"none", pb::CG_NONE},  {"props", pb::PROPS}, {"soft", pb::SOFT},
      {"full", pb::FULL},     {"strict", pb::STRICT}, {"", pb::SOFT}};
  for (const auto& [name, mode] : kModes) {
    if (name != value) continue;
    r.opts.set_manage_cgroups(mode != pb::IGNORE);
    r.opts.set_manage_cgroups_mode(mode);
    return {};
  }
  return bad(cat("\"", value, "\" is not one of ignore, none, props, soft, full, strict"));
}

Result<void> add_cgroup_root(Request& r, std::string_view value, bool) {
  const size_t colon = value.starts_with('/') ? std::string_view::npos : value.find(':');
  auto* root = r.opts.add_cg_root();
  if (colon != std::string_view::npos && colon > 0) root->set_ctrl(std::string(value.substr(0, colon)));
  root->set_path(std::string(colon == std::string_view::npos ? value : value.substr(colon + 1)));
  return {};
}

Result<void> add_inherit_fd(Request& r, std::string_view value, bool) {
  const size_t close = value.find("]:");
  if (!value.starts_with("fd[") || close == std::string_view::npos || close + 2 == value.size())
    return bad(cat("\"", value, "\" is not fd[N]:KEY"));
  const auto fd = parse_int<int>(value.substr(3, close - 3));
  if (!fd || *fd < 0) return bad(cat("\"", value, "\" has no descriptor number between the brackets"));
  auto* entry = r.opts.add_inherit_fd();
  entry->set_fd(*fd);
  entry->set_key(std::string(value.substr(close + 2)));
  return {};
}

Result<void> set_ghost_limit(Request& r, std::string_view value, bool) {
  const uint64_t size = TRY(parse_size(value));
  if (size > UINT32_MAX) return bad(cat("\"", value, "\" is more than 4 GiB"));
  r.opts.set_ghost_limit(static_cast<uint32_t>(size));
  return {};
}

Result<void> add_empty_ns(Request& r, std::string_view value, bool) {
  if (value != "net") return bad(cat("\"", value, "\": only net can be left empty"));
  r.opts.set_empty_ns(r.opts.empty_ns() | 0x40000000u);  // CLONE_NEWNET
  return {};
}

Result<void> add_join_ns(Request& r, std::string_view value, bool) {
  const size_t colon = value.find(':');
  if (colon == 0 || colon == std::string_view::npos || colon + 1 == value.size())
    return bad(cat("\"", value, "\" is not NS:FILE or NS:PID"));
  std::string_view file = value.substr(colon + 1), extra;
  if (const size_t comma = file.find(','); comma != std::string_view::npos) {
    extra = file.substr(comma + 1);
    file = file.substr(0, comma);
  }
  auto* join = r.opts.add_join_ns();
  join->set_ns(std::string(value.substr(0, colon)));
  join->set_ns_file(std::string(file));
  if (!extra.empty()) join->set_extra_opt(std::string(extra));
  return {};
}

Result<void> set_pre_dump_mode(Request& r, std::string_view value, bool) {
  if (value == "splice") {
    r.opts.set_pre_dump_mode(pb::SPLICE);
  } else if (value == "read") {
    r.opts.set_pre_dump_mode(pb::VM_READ);
  } else {
    return bad(cat("\"", value, "\" is not splice or read"));
  }
  return {};
}

Result<void> set_network_lock(Request& r, std::string_view value, bool) {
  if (value == "iptables") {
    r.opts.set_network_lock(pb::IPTABLES);
  } else if (value == "nftables") {
    r.opts.set_network_lock(pb::NFTABLES);
  } else if (value == "skip") {
    r.opts.set_network_lock(pb::SKIP);
  } else {
    return bad(cat("\"", value, "\" is not iptables, nftables or skip"));
  }
  return {};
}

Result<void> set_file_validation(Request& r, std::string_view value, bool) {
  if (value == "filesize") {
    r.opts.set_file_validation_method(pb::FILE_SIZE);
  } else if (value == "buildid") {
    r.opts.set_file_validation_method(pb::BUILD_ID);
  } else if (value == "mtime") {
    r.opts.set_file_validation_method(pb::MTIME);
  } else {
    return bad(cat("\"", value, "\" is not filesize, buildid, or mtime"));
  }
  return {};
}

Result<void> add_close(Request& r, std::string_view value, bool) {
  const auto fd = parse_int<int>(value);
  if (!fd || *fd < 3) return bad(cat("\"", value, "\" is not a descriptor above 2"));
  r.close_fds.push_back(*fd);
  return {};
}

Result<void> refuse_stream(Request& r, std::string_view, bool on) {
  if (on) r.unsupported.emplace_back("--stream");
  return {};
}

constexpr unsigned kBoth = kDump | kRestore;
constexpr unsigned kAll = kDump | kRestore | kCheck | kOther;
constexpr Arg kNone = Arg::kNone, kReq = Arg::kRequired, kOpt = Arg::kOptional;
constexpr Support kYes = Support::kBuilt, kNoOp = Support::kNoOp, kRefused = Support::kRefused;

// letter, name, argument, negatable, support, where, fields, metavar, help, setter; one row a line.
// clang-format off
constexpr OptionSpec kTable[] = {
    // --- the tree and its state
    {'t', "tree", kReq, false, kYes, kDump | kOther, "pid", "PID", "root of the process tree", number<&O::set_pid, int32_t, 1>},
    {'R', "leave-running", kNone, true, kYes, kDump, "leave_running", "", "let the tasks run on afterwards", flag<&O::set_leave_running>},
    {'s', "leave-stopped", kNone, true, kYes, kBoth, "leave_stopped", "", "leave the tasks stopped", flag<&O::set_leave_stopped>},
    {'d', "restore-detached", kNone, true, kYes, kRestore, "stasis_restore_detached", "", "exit once the tasks run", flag<&O::set_stasis_restore_detached>},
    {'S', "restore-sibling", kNone, true, kYes, kRestore, "rst_sibling", "", "make the root task a child of our parent; needs -d", flag<&O::set_rst_sibling>},
    {0, "daemon", kNone, true, kYes, kOther, "", "", "service: go to the background once it listens (as -d)", local<&Request::daemon>},
    {0, "exec-cmd", kNone, false, kYes, kRestore | kCliOnly, "exec_cmd", "", "become the command after -- once the tasks run", local<&Request::exec_cmd>},
    {'j', "shell-job", kNone, true, kYes, kBoth, "shell_job", "", "the tree belongs to a shell's session and terminal", flag<&O::set_shell_job>},
    {0, "pidfile", kReq, false, kYes, kRestore | kOther, "stasis_pidfile", "FILE", "write the root task's pid here; must not exist", text<&O::mutable_stasis_pidfile>},
    {0, "timeout", kReq, false, kYes, kDump, "timeout", "SECONDS", "limit for freezing (10)", number<&O::set_timeout, uint32_t, 1>},
    {0, "allow-uprobes", kNone, true, kYes, kDump, "allow_uprobes", "", "accept a [uprobes] mapping", flag<&O::set_allow_uprobes>},
    {0, "unprivileged", kNone, true, kNoOp, kAll, "unprivileged", "", "whatever the kernel permits is tried anyway", flag<&O::set_unprivileged>},
    // --- directories and log
    {'D', "images-dir", kReq, false, kYes, kBoth | kOther, "images_dir images_dir_fd", "DIR", "where the image files are", set_images_dir},
    {'W', "work-dir", kReq, false, kYes, kBoth | kOther, "stasis_work_dir", "DIR", "where log and statistics go (the images directory)", set_work_dir},
    {'o', "log-file", kReq, false, kYes, kAll, "log_file", "FILE", "write the log here; - is standard output", text<&O::mutable_log_file>},
    {'v', "verbosity", kOpt, false, kYes, kAll, "log_level", "LEVEL", "1 errors, 2 warnings, 3 more, 4 all", set_verbosity},
    {0, "log-pid", kNone, true, kNoOp, kAll, "", "", "there is one log for all tasks", nothing},
    {0, "display-stats", kNone, true, kYes, kBoth, "display_stats", "", "print the statistics at the end", flag<&O::set_display_stats>},
    {0, "stream", kNone, true, kRefused, kBoth, "", "", "images through a socket", refuse_stream},
    {0, "force", kNone, true, kYes, kDump | kStasisOnly, "stasis_replace_images", "", "replace an earlier checkpoint in the images directory", flag<&O::set_stasis_replace_images>},
    {0, "plan", kReq, false, kYes, kBoth | kStasisOnly, "stasis_plan_file", "FILE", "the translation of a container, as `stasis plan` prints it", text<&O::mutable_stasis_plan_file>},
    // --- memory
    {0, "track-mem", kNone, true, kRefused, kBoth | kOther, "track_mem", "", "incremental checkpoints", flag<&O::set_track_mem>},
    {0, "prev-images-dir", kReq, false, kRefused, kDump | kOther, "parent_img", "DIR", "incremental checkpoints", text<&O::mutable_parent_img>},
    {0, "auto-dedup", kNone, true, kNoOp, kBoth | kOther, "auto_dedup", "", "only incremental checkpoints have duplicates", flag<&O::set_auto_dedup>},
    {0, "pre-dump-mode", kReq, false, kNoOp, kOther, "pre_dump_mode", "splice|read", "how pre-dump reads memory", set_pre_dump_mode},
    {0, "page-server", kNone, true, kRefused, kDump | kOther, "ps", "", "send pages to a page server", set_page_server},
    {0, "address", kReq, false, kRefused, kBoth | kOther, "ps", "ADDRESS", "of the page server; service: path of its socket", set_ps_address},
    {0, "port", kReq, false, kRefused, kBoth | kOther, "ps", "PORT", "of the page server", set_ps_port},
    {0, "ps-socket", kReq, false, kRefused, kBoth | kOther, "ps", "FD", "connection to the page server", set_ps_socket},
    {0, "lazy-pages", kNone, true, kRefused, kBoth, "lazy_pages", "", "fetch memory on demand", flag<&O::set_lazy_pages>},
    {0, "status-fd", kReq, false, kNoOp, kBoth | kOther, "status_fd", "FD", "only page-server and lazy-pages report there", number<&O::set_status_fd, int32_t, 0>},
    {0, "tls", kNone, true, kNoOp, kBoth | kOther, "tls", "", "only the page server uses it", flag<&O::set_tls>},
    {0, "tls-no-cn-verify", kNone, true, kNoOp, kBoth | kOther, "tls_no_cn_verify", "", "as --tls", flag<&O::set_tls_no_cn_verify>},
    {0, "tls-cacert", kReq, false, kNoOp, kBoth | kOther, "tls_cacert", "FILE", "as --tls", text<&O::mutable_tls_cacert>},
    {0, "tls-cacrl", kReq, false, kNoOp, kBoth | kOther, "tls_cacrl", "FILE", "as --tls", text<&O::mutable_tls_cacrl>},
    {0, "tls-cert", kReq, false, kNoOp, kBoth | kOther, "tls_cert", "FILE", "as --tls", text<&O::mutable_tls_cert>},
    {0, "tls-key", kReq, false, kNoOp, kBoth | kOther, "tls_key", "FILE", "as --tls", text<&O::mutable_tls_key>},
    // --- files
    {'l', "file-locks", kNone, true, kYes, kBoth, "file_locks", "", "allow tasks that hold file locks", flag<&O::set_file_locks>},
    {0, "link-remap", kNone, true, kYes, kBoth, "link_remap", "", "allow linking unlinked files back temporarily", flag<&O::set_link_remap>},
    {0, "ghost-limit", kReq, false, kYes, kDump, "ghost_limit", "SIZE", "largest unlinked file kept in the images (1G)", set_ghost_limit},
    {0, "ghost-fiemap", kNone, true, kNoOp, kDump, "ghost_fiemap", "", "holes are always found", flag<&O::set_ghost_fiemap>},
    {0, "evasive-devices", kNone, true, kYes, kBoth, "evasive_devices", "", "take any path to a device that leads to it", flag<&O::set_evasive_devices>},
    {0, "force-irmap", kNone, true, kYes, kBoth | kOther, "force_irmap", "", "look for watched inodes by scanning before asking file handles", flag<&O::set_force_irmap>},
    {0, "irmap-scan-path", kReq, false, kYes, kDump | kOther, "irmap_scan_paths", "PATH", "of the container: look for watched inodes here first", list<&O::mutable_irmap_scan_paths>},
    {0, "file-validation", kReq, false, kYes, kBoth, "file_validation_method", "METHOD", "what tells a file from another: filesize (the default), buildid (of executables), mtime", set_file_validation},
    {0, "skip-file-rwx-check", kNone, true, kYes, kRestore, "skip_file_rwx_check", "", "permission bits are not compared", flag<&O::set_skip_file_rwx_check>},
    // --- what stays outside
    {0, "external", kReq, false, kYes, kBoth, "external", "KIND[KEY]:VALUE", "a resource that is not part of the images", list<&O::mutable_external>},
    {'M', "ext-mount-map", kReq, false, kYes, kBoth, "ext_mnt auto_ext_mnt", "KEY:VALUE|auto", "an external mount", add_ext_mount},
    {0, "inherit-fd", kReq, false, kYes, kRestore, "inherit_fd", "fd[N]:KEY", "restore KEY as our descriptor N", add_inherit_fd},
    {0, "enable-external-sharing", kNone, true, kYes, kBoth, "ext_sharing", "", "auto: external mounts may be shared", flag<&O::set_ext_sharing>},
    {0, "enable-external-masters", kNone, true, kYes, kBoth, "ext_masters", "", "auto: external mounts may be slaves", flag<&O::set_ext_masters>},
    {0, "enable-fs", kReq, false, kYes, kBoth, "enable_fs", "TYPES|all", "file systems to mount anew without content", list<&O::mutable_enable_fs>},
    {0, "skip-mnt", kReq, false, kYes, kBoth, "skip_mnt", "PATH", "a mount point to leave out", list<&O::mutable_skip_mnt>},
    {'r', "root", kReq, false, kYes, kRestore, "root", "DIR", "new root directory, a mount point", text<&O::mutable_root>},
    {'J', "join-ns", kReq, false, kYes, kRestore, "join_ns", "NS:FILE", "restore into an existing namespace", add_join_ns},
    {0, "empty-ns", kReq, false, kYes, kBoth, "empty_ns", "net", "a namespace whose content is not kept", add_empty_ns},
    {'x', "ext-unix-sk", kOpt, true, kYes, kBoth, "ext_unix_sk unix_sk_ino", "INODE", "allow unix sockets with a peer outside", set_ext_unix_sk},
    {0, "veth-pair", kReq, false, kYes, kRestore, "veths", "IN=OUT", "name of a veth's outer end", add_veth_pair},
    {0, "close", kReq, false, kYes, kAll | kCliOnly, "", "FD", "close this descriptor first", add_close},
    {0, "mntns-compat-mode", kNone, true, kNoOp, kRestore, "mntns_compat_mode", "", "there is one way to restore mounts", flag<&O::set_mntns_compat_mode>},
    // --- control groups
    {0, "manage-cgroups", kOpt, false, kYes, kBoth, "manage_cgroups manage_cgroups_mode", "MODE", "none, props, soft, full, strict or ignore", set_manage_cgroups},
    {0, "cgroup-root", kReq, false, kYes, kBoth, "cg_root", "[C1,C2:]PATH", "new top of the tree, for all or these controllers", add_cgroup_root},
    {0, "freeze-cgroup", kReq, false, kYes, kDump, "freeze_cgroup", "DIR", "freezer cgroup that holds the tree", text<&O::mutable_freeze_cgroup>},
    {0, "cgroup-yard", kReq, false, kYes, kBoth, "cgroup_yard", "DIR", "where the hierarchies are mounted", text<&O::mutable_cgroup_yard>},
    {0, "cgroup-dump-controller", kReq, false, kYes, kDump, "cgroup_dump_controller", "NAME", "a controller to look at", list<&O::mutable_cgroup_dump_controller>},
    {0, "cgroup-props", kReq, false, kRefused, kDump, "cgroup_props", "TEXT", "a table of properties", text<&O::mutable_cgroup_props>},
    {0, "cgroup-props-file", kReq, false, kRefused, kDump, "cgroup_props_file", "FILE", "a table of properties", text<&O::mutable_cgroup_props_file>},
    // --- network
    {0, "tcp-established", kNone, true, kYes, kBoth, "tcp_established", "", "accepted; connections are always kept", flag<&O::set_tcp_established>},
    {0, "skip-in-flight", kNone, true, kYes, kDump, "tcp_skip_in_flight", "", "drop connections not yet accepted", flag<&O::set_tcp_skip_in_flight>},
    {0, "tcp-close", kNone, true, kYes, kBoth, "tcp_close", "", "restore TCP connections closed", flag<&O::set_tcp_close>},
    {0, "weak-sysctls", kNone, true, kNoOp, kRestore, "weak_sysctls", "", "tolerate missing network sysctls", flag<&O::set_weak_sysctls>},
    {0, "network-lock", kReq, false, kNoOp, kBoth, "network_lock", "METHOD", "iptables, nftables or skip", set_network_lock},
    // --- security
    {0, "lsm-profile", kReq, false, kYes, kRestore, "lsm_profile", "TYPE:NAME", "security label of the tasks", text<&O::mutable_lsm_profile>},
    {0, "lsm-mount-context", kReq, false, kYes, kRestore, "lsm_mount_context", "CONTEXT", "replaces context= of mounts", text<&O::mutable_lsm_mount_context>},
    {0, "cpu-cap", kOpt, false, kNoOp, kBoth, "cpu_cap", "LIST", "the images make no demands on the processor's model", set_cpu_cap},
    // --- scripts, checks, config
    {0, "action-script", kReq, false, kYes, kBoth | kOther, "stasis_action_script", "FILE", "run this at each phase", text<&O::mutable_stasis_action_script>},
    {'L', "libdir", kReq, false, kNoOp, kAll, "", "DIR", "there are no plugins", nothing},
    {0, "feature", kReq, false, kYes, kCheck | kCliOnly, "", "NAME|list", "is this feature there?", add_feature},
    {0, "extra", kNone, true, kYes, kCheck | kCliOnly, "", "", "check optional features too", local<&Request::check_all>},
    {0, "experimental", kNone, true, kYes, kCheck | kCliOnly, "", "", "as --extra", local<&Request::check_all>},
    {0, "all", kNone, true, kYes, kCheck | kCliOnly, "", "", "as --extra", local<&Request::check_all>},
    {0, "config", kReq, false, kYes, kAll | kCliOnly, "", "FILE", "read this config file instead of the usual ones", set_config},
    {0, "no-default-config", kNone, false, kYes, kAll | kCliOnly, "", "", "read no config file", local<&Request::default_config, false>},
    {0, "deprecated", kNone, true, kNoOp, kAll, "", "", "old forms are always accepted", nothing},
    {'h', "help", kNone, false, kYes, kAll | kCliOnly, "", "", "this text", local<&Request::help>},
    {'V', "version", kNone, false, kYes, kAll | kCliOnly, "", "", "print the version", local<&Request::version>},
};
// clang-format on

constexpr RpcOnlyField kRpcOnly[] = {
    {"work_dir_fd", "a descriptor in the client's table; --work-dir names a path"},
    {"notify_scripts", "asks for notifications over the socket; a command line has --action-script"},
    {"orphan_pts_master", "the master is handed over through the socket"},
    {"config_file", "read over the request; --config is read before the command line"},
    {"pidfd_store_sk", "a socket in the client's table, for pre-dumps"},
    {"log_to_stderr", "a command line logs to stderr unless told otherwise"},
};

void help_line(const OptionSpec& spec, std::string& out) {
  std::string head = spec.letter ? cat("  -", spec.letter, ", --", spec.name) : cat("      --", spec.name);
  if (spec.arg == Arg::kRequired) head += cat(" ", spec.metavar);
  if (spec.arg == Arg::kOptional) head += cat("[=", spec.metavar, "]");
  head.resize(std::max<size_t>(head.size() + 2, 38), ' ');
  out += head;
  if (spec.support == Support::kRefused) out += "(not built yet) ";
  if (spec.support == Support::kNoOp) out += "(no effect) ";
  out += cat(spec.help, "\n");
}

}  // namespace

std::span<const OptionSpec> option_table() { return kTable; }
std::span<const RpcOnlyField> rpc_only_fields() { return kRpcOnly; }

std::string option_help(unsigned where, bool stasis_door, std::span<const OptionSpec> extra) {
  std::string out;
  for (const auto& spec : extra) help_line(spec, out);
  for (const auto& spec : kTable) {
    if (!(spec.where & where)) continue;
    if ((spec.where & kStasisOnly) && !stasis_door) continue;
    if (stasis_door && spec.support != Support::kBuilt) continue;
    const auto same = [&](const OptionSpec& own) { return own.name == spec.name; };
    if (std::any_of(extra.begin(), extra.end(), same)) continue;
    help_line(spec, out);
  }
  return out;
}

Result<uint64_t> parse_size(std::string_view text) {
  const std::string_view whole = text;
  unsigned shift = 0;
  if (!text.empty()) {
    const char unit = text.back();
    shift = unit == 'K' || unit == 'k' ? 10 : unit == 'M' || unit == 'm' ? 20 : unit == 'G' || unit == 'g' ? 30 : 0;
    if (shift) text.remove_suffix(1);
  }
  const auto value = parse_int<uint64_t>(text);
  if (!value || *value > (UINT64_MAX >> shift)) return bad(cat("\"", whole, "\" is not a size"));
  return *value << shift;
}

}  // namespace stasis::cli
