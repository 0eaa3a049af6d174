// SPDX-License-Identifier: Apache-2.0
// The pure half of external_engine.h.
#include <array>

#include "cgroups/root_option.h"
#include "engine/base/strings.h"
#include "integration/engine_link.h"
#include "integration/external_engine.h"

namespace stasis::integration {
namespace {

Error not_there(std::string_view option, std::string_view why) {
  return Error(Code::kUnsupportedOption, cat(option, " ", why)).about(std::string(option));
}

// Fields that only newer engines know: an older one would skip them without a word.
Result<void> check_fields(const pb::criu_opts& o, PlanFor purpose, int version) {
  struct Row {
    bool given;
    std::string_view option;
    int since;
  };
  constexpr int kNever = 1 << 30;
  const std::array<Row, 8> table = {{
      {o.allow_uprobes(), "--allow-uprobes", kNever},
      {o.ghost_fiemap(), "--ghost-fiemap", kNever},
      {o.has_file_validation_method(), "--file-validation", kNever},
      {o.rst_sibling(), "--restore-sibling", kNever},
      {o.leave_stopped(), "--leave-stopped", 40000},
      {o.unprivileged(), "--unprivileged", 40000},
      {o.skip_file_rwx_check(), "--skip-file-rwx-check", 40000},
      {o.mntns_compat_mode(), "--mntns-compat-mode", 31700},
  }};
  for (const auto& [given, option, since] : table) {
    if (!given || version >= since) continue;
    return fail(not_there(option, since == kNever ? "cannot be given to another engine (--engine)"
                                                  : "is not known to the engine of --engine, which is too old for it"));
  }
  for (const auto& text : o.external())
    if (text.starts_with("pid[") && version < 31500)
      return fail(not_there("--external pid[]", "is not known to the engine of --engine, which is too old for it"));
  if (purpose == PlanFor::kRestore && o.has_manage_cgroups_mode() && o.cg_root_size() > 0 &&
      o.manage_cgroups_mode() == pb::IGNORE)
    return fail(not_there("--cgroup-root", "has no effect where cgroups are ignored"));
  return {};
}

// One root for each hierarchy, under its own name: criu compares the whole name, we any controller in it.
Result<void> spell_out_roots(const Options& options, const std::vector<cgroups::Hierarchy>& hierarchies,
                             pb::criu_opts& out) {
  if (out.cg_root_size() == 0) return {};
  out.clear_cg_root();
  for (const auto& hierarchy : hierarchies) {
    const auto root = TRY(cgroups::root_for(hierarchy, options.cgroup_roots));
    if (!root) continue;
    auto* entry = out.add_cg_root();
    entry->set_ctrl(hierarchy.name());
    entry->set_path(*root);
  }
  return {};
}

}  // namespace

Result<EngineRequest> engine_request(const pb::criu_opts& opts, const Options& options, PlanFor purpose, int version,
                                     const std::vector<cgroups::Hierarchy>& hierarchies) {
  TRY(check_fields(opts, purpose, version));
  EngineRequest out;
  pb::criu_opts& o = out.opts = opts;
  // Numbers in our own table: the engine's peer is this process.
  o.set_images_dir_fd(options.images_dir.get());
  o.set_work_dir_fd(options.work_dir.get());
  o.clear_images_dir();
  o.set_log_file(purpose == PlanFor::kDump ? "engine-dump.log" : "engine-restore.log");
  o.set_notify_scripts(true);
  // Done by us, before, after and at the notifications.
  o.clear_exec_cmd(), o.clear_display_stats(), o.clear_log_to_stderr(), o.clear_config_file();
  o.clear_stasis_replace_images(), o.clear_stasis_plan_file(), o.clear_stasis_pidfile();
  o.clear_stasis_action_script(), o.clear_stasis_restore_detached(), o.clear_stasis_work_dir();
  TRY(spell_out_roots(options, hierarchies, o));
  o.clear_inherit_fd();
  for (const auto& inherit : opts.inherit_fd()) {
    auto* entry = o.add_inherit_fd();
    entry->set_key(inherit.key());
    entry->set_fd(inherit.fd());
    if (inherit.fd() <= 2) continue;  // the engine has our stdio
    entry->set_fd(EngineLink::kSocket + 1 + static_cast<int>(out.passed.size()));
    out.passed.push_back(inherit.fd());
  }
  if (purpose == PlanFor::kDump) return out;
  o.clear_pid();
  o.set_rst_sibling(true);  // a child of ours, for waiting or for the supervisor
  return out;
}

}  // namespace stasis::integration
