// SPDX-License-Identifier: Apache-2.0
// The pure half of validate.h: from the message to Options, without a look at the host.
#include <linux/sched.h>

#include <algorithm>
#include <array>

#include "cgroups/root_option.h"
#include "engine/base/strings.h"
#include "engine/cli/validate.h"

namespace stasis::cli {
namespace {

std::unexpected<Error> bad(std::string text) { return fail(Code::kBadOption, std::move(text)); }

// A NUL inside a string would end a path early, after it was checked as a whole.
Result<void> check_strings(const google::protobuf::Message& message) {
  const auto* reflection = message.GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const auto* field : fields) {
    const int count = field->is_repeated() ? reflection->FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
        TRY(check_strings(field->is_repeated() ? reflection->GetRepeatedMessage(message, field, i)
                                               : reflection->GetMessage(message, field)));
      } else if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_STRING) {
        const std::string value = field->is_repeated() ? reflection->GetRepeatedString(message, field, i)
                                                       : reflection->GetString(message, field);
        if (value.find('\0') != std::string::npos) return bad(cat("option ", field->name(), " contains a NUL byte"));
      }
    }
  }
  return {};
}

// What would lose state, or give less than was asked for, if it were ignored.
Result<void> refuse_unbuilt(const pb::criu_opts& o) {
  const std::array<std::pair<bool, std::string_view>, 7> table = {{
      {o.lazy_pages(), "--lazy-pages"},
      {o.has_ps(), "--page-server"},
      {o.has_parent_img() && !o.parent_img().empty(), "--prev-images-dir"},
      {o.track_mem(), "--track-mem"},
      {o.has_lsm_mount_context(), "--lsm-mount-context"},
      {o.has_cgroup_props(), "--cgroup-props"},
      {o.has_cgroup_props_file(), "--cgroup-props-file"},
  }};
  for (const auto& [given, name] : table)
    if (given) return fail(Error(Code::kUnsupportedOption, cat(name, " is not built yet")).about(std::string(name)));
  return {};
}

void add_externals(const pb::criu_opts& o, Options& out) {
  for (const auto& map : o.ext_mnt()) out.externals.push_back({"mnt", map.key(), map.val()});
  for (const auto& pair : o.veths()) out.externals.push_back({"veth", pair.if_in(), pair.if_out()});
  for (const auto& sk : o.unix_sk_ino()) out.externals.push_back({"unix", cat(sk.inode()), ""});
  out.auto_ext_mnt = o.auto_ext_mnt();
  out.ext_sharing = o.ext_sharing();
  out.ext_masters = o.ext_masters();
  for (const auto& text : o.external()) {
    External entry = parse_external(text);
    if (entry.kind == "mnt" && entry.key.empty()) {  // mnt[] or mnt[]:ms
      out.auto_ext_mnt = true;
      out.ext_masters |= entry.value.find('m') != std::string::npos;
      out.ext_sharing |= entry.value.find('s') != std::string::npos;
      continue;
    }
    out.externals.push_back(std::move(entry));
  }
}

Result<void> add_cgroups(const pb::criu_opts& o, const Env& env, Options& out) {
  for (const auto& root : o.cg_root()) {
    std::optional<std::string_view> ctrl;
    if (root.has_ctrl()) ctrl = root.ctrl();
    out.cgroup_roots.push_back(TRY(cgroups::make_cgroup_root(ctrl, root.path())));
  }
  // Opt-in on a command line (a --cgroup-root asks for it too); RPC clients that say nothing get soft, as in CRIU.
  if (o.has_manage_cgroups_mode()) {
    out.cgroup_mode = cgroup_mode_of(o.manage_cgroups_mode());
  } else if (o.has_manage_cgroups()) {
    out.cgroup_mode = o.manage_cgroups() ? CgroupMode::kSoft : CgroupMode::kIgnore;
  } else {
    const bool on = env.door == Door::kRpc || !out.cgroup_roots.empty();
    out.cgroup_mode = on ? CgroupMode::kSoft : CgroupMode::kIgnore;
  }
  out.cgroup_roots_required = env.door != Door::kRpc && !out.cgroup_roots.empty();  // runc always sends some
  out.freeze_cgroup = o.freeze_cgroup();
  out.cgroup_yard = o.cgroup_yard();
  out.cgroup_dump_controllers.assign(o.cgroup_dump_controller().begin(), o.cgroup_dump_controller().end());
  return {};
}

Result<void> add_namespaces(const pb::criu_opts& o, Options& out) {
  if (o.empty_ns() & ~static_cast<uint32_t>(CLONE_NEWNET))
    return bad(cat("empty_ns ", hex(o.empty_ns()), ": only the network namespace can be left empty"));
  out.empty_ns = o.empty_ns();
  static constexpr std::string_view kJoinable[] = {"net", "uts", "time", "ipc", "user", "mnt", "cgroup"};
  for (const auto& join : o.join_ns()) {
    if (std::ranges::find(kJoinable, join.ns()) == std::end(kJoinable))
      return bad(cat("join-ns: \"", join.ns(), "\" is not a namespace that can be joined"));
    if (join.ns_file().empty()) return bad(cat("join-ns ", join.ns(), " names no file"));
    out.join_ns.push_back({join.ns(), join.ns_file(), join.extra_opt()});
  }
  for (const auto& inherit : o.inherit_fd()) {
    if (inherit.fd() < 0 || inherit.key().empty())
      return bad(cat("inherit-fd fd[", inherit.fd(), "]:", inherit.key(), " is not valid"));
    out.inherit_fds.push_back({inherit.key(), inherit.fd()});
  }
  return {};
}

Result<void> add_parent(const pb::criu_opts& o, const Env& env, Options& out) {
  out.exec_cmd.assign(o.exec_cmd().begin(), o.exec_cmd().end());
  if (env.action == Action::kDump) {
    if (!out.exec_cmd.empty()) return fail(Code::kUsage, "--exec-cmd is available for restore only");
    return {};
  }
  const bool detached = env.door == Door::kRpc || o.stasis_restore_detached();
  if (!out.exec_cmd.empty()) {
    if (out.exec_cmd[0].empty()) return fail(Code::kBadSupervisor, "the supervisor command is empty");
    if (o.rst_sibling() || (env.door != Door::kRpc && detached))
      return fail(Code::kUsage, "--exec-cmd cannot be used together with --restore-detached or --restore-sibling");
    out.parent = RestoreParent::kExecCmd;
  } else if (o.rst_sibling()) {
    if (!detached) return fail(Code::kUsage, "--restore-sibling needs --restore-detached");
    out.parent = RestoreParent::kSibling;
  } else {
    out.parent = detached ? RestoreParent::kDetached : RestoreParent::kWait;
  }
  return {};
}

Result<void> add_log(const pb::criu_opts& o, const Env& env, Options& out) {
  out.log_file = o.log_file();
  out.log_level = static_cast<log::Level>(std::clamp(o.log_level(), 1, 4));
  out.display_stats = o.display_stats();
  if (env.door != Door::kRpc || !o.has_log_file()) return {};
  if (out.log_file.empty() || out.log_file.find('/') != std::string::npos || out.log_file == "." ||
      out.log_file == "..")
    return bad(cat("log_file \"", out.log_file, "\" must be a plain name in the work directory"));
  return {};
}

void add_flags(const pb::criu_opts& o, const Env& env, Options& out) {
  out.replace_images = env.door != Door::kStasis || o.stasis_replace_images();
  out.leave_running = o.leave_running();
  out.leave_stopped = o.leave_stopped();
  out.shell_job = o.shell_job();
  out.tcp_established = o.tcp_established();
  out.tcp_close = o.tcp_close();
  out.tcp_skip_in_flight = o.tcp_skip_in_flight();
  out.ext_unix_sk = o.ext_unix_sk();
  out.file_locks = o.file_locks();
  out.link_remap = o.link_remap();
  out.evasive_devices = o.evasive_devices();
  out.orphan_pts_master = o.orphan_pts_master();
  out.allow_uprobes = o.allow_uprobes();
  out.notify_scripts = o.notify_scripts();
  out.pidfile = o.stasis_pidfile();
  out.action_script = o.stasis_action_script();
  if (o.has_ghost_limit()) out.ghost_limit = o.ghost_limit();
  // Not by default as with CRIU: who watches the files would see them read.
  out.build_ids = o.has_file_validation_method() && o.file_validation_method() == pb::BUILD_ID;
  out.compare_modes = !o.skip_file_rwx_check();
  out.mtimes = o.file_validation_method() == pb::MTIME;
  out.force_irmap = o.force_irmap();
  out.irmap_scan_paths.assign(o.irmap_scan_paths().begin(), o.irmap_scan_paths().end());
  if (o.timeout() != 0) out.timeout_seconds = o.timeout();  // 0 would be a freeze without end
  out.skip_mounts.assign(o.skip_mnt().begin(), o.skip_mnt().end());
  for (const auto& entry : o.enable_fs())
    for (const auto type : split(entry, ','))
      if (!type.empty()) out.enable_fs.emplace_back(type);
}

}  // namespace

CgroupMode cgroup_mode_of(pb::criu_cg_mode mode) {
  switch (mode) {
    case pb::IGNORE: return CgroupMode::kIgnore;
    case pb::CG_NONE: return CgroupMode::kNone;
    case pb::PROPS: return CgroupMode::kProps;
    case pb::FULL: return CgroupMode::kFull;
    case pb::STRICT: return CgroupMode::kStrict;
    case pb::SOFT:
    case pb::DEFAULT: break;
  }
  return CgroupMode::kSoft;
}

External parse_external(std::string_view text) {
  const size_t open = text.find('[');
  size_t close = open == std::string_view::npos ? open : text.find("]:", open);
  if (close == std::string_view::npos && open != std::string_view::npos && text.ends_with(']')) close = text.size() - 1;
  if (open == 0 || close == std::string_view::npos) return {"", std::string(text), ""};
  External entry{std::string(text.substr(0, open)), std::string(text.substr(open + 1, close - open - 1)), ""};
  if (close + 2 <= text.size()) entry.value = text.substr(close + 2);
  return entry;
}

Result<Options> convert(const pb::criu_opts& o, const Env& env) {
  TRY(check_strings(o));
  TRY(refuse_unbuilt(o));
  Options out;
  add_flags(o, env, out);
  TRY(add_log(o, env, out));
  add_externals(o, out);
  TRY(add_cgroups(o, env, out));
  TRY(add_namespaces(o, out));
  TRY(add_parent(o, env, out));
  if (env.action == Action::kDump) {
    out.pid = o.has_pid() ? o.pid() : env.door == Door::kRpc ? env.peer : 0;
    if (!o.has_pid() && env.door != Door::kRpc) return fail(Code::kUsage, "say which process to dump: --tree PID");
    if (out.pid <= 0) return bad(cat("pid ", out.pid, " is not a process"));
  } else {
    out.root = o.root();
  }
  if (o.has_lsm_profile() && !o.lsm_profile().empty()) {
    if (o.lsm_profile().find(':') == std::string::npos)
      return bad(cat("lsm-profile \"", o.lsm_profile(), "\" is not TYPE:NAME"));
    out.lsm_profile = o.lsm_profile();
  }
  return out;
}

}  // namespace stasis::cli
