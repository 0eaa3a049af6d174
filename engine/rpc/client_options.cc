// SPDX-License-Identifier: Apache-2.0
// What a client of the service that is not root may ask for: a list of what is harmless, so that a new option is
// refused until somebody has thought about it.
#include <algorithm>

#include "engine/base/strings.h"
#include "engine/rpc/server.h"

namespace stasis::rpc {
namespace {

using google::protobuf::FieldDescriptor;

constexpr std::string_view kHarmless[] = {
    "images_dir_fd", "work_dir_fd", "pid", "leave_running", "leave_stopped", "log_level", "log_file", "notify_scripts",
    "shell_job", "file_locks", "link_remap", "evasive_devices", "ext_unix_sk", "tcp_established", "tcp_close",
    "tcp_skip_in_flight", "ghost_limit", "timeout", "orphan_pts_master",
    // without effect here, and sent by clients
    "auto_dedup", "cpu_cap", "force_irmap", "weak_sysctls", "network_lock", "mntns_compat_mode", "skip_file_rwx_check",
    "unprivileged", "display_stats", "log_to_stderr", "allow_uprobes", "ghost_fiemap", "file_validation_method",
    // refused by name for everybody
    "lazy_pages", "track_mem", "parent_img", "ps", "pre_dump_mode", "status_fd"};

// Clients send what they do not mean: false, 0, an empty string.
bool says_nothing(const pb::criu_opts& opts, const FieldDescriptor& field) {
  const auto& reflection = *opts.GetReflection();
  if (field.is_repeated()) return reflection.FieldSize(opts, &field) == 0;
  if (!reflection.HasField(opts, &field)) return true;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL: return !reflection.GetBool(opts, &field);
    case FieldDescriptor::CPPTYPE_STRING: return reflection.GetString(opts, &field).empty();
    case FieldDescriptor::CPPTYPE_UINT32: return reflection.GetUInt32(opts, &field) == 0;
    default: return false;
  }
}

}  // namespace

Result<void> check_client_options(const pb::criu_opts& opts) {
  const auto& type = *opts.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const auto& field = *type.field(i);
    if (std::ranges::find(kHarmless, std::string_view(field.name())) != std::end(kHarmless)) continue;
    if (says_nothing(opts, field)) continue;
    if (field.name() == "manage_cgroups_mode" && opts.manage_cgroups_mode() == pb::IGNORE) continue;
    return fail(Error(Code::kPermission, cat("option ", field.name(), " is for root\'s requests only"))
                    .about(field.name())
                    .with_errno(EPERM));
  }
  return {};
}

}  // namespace stasis::rpc
