// SPDX-License-Identifier: Apache-2.0
#include "cgroups/apply.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "cgroups/control_file.h"
#include "cgroups/properties.h"
#include "engine/base/log.h"

namespace stasis::cgroups {

namespace {

bool has_line(std::string_view text, std::string_view wanted) {
  return std::ranges::any_of(lines(text), [&](std::string_view line) { return trim(line) == trim(wanted); });
}

Result<void> write_lines(int dir, const std::string& name, std::string_view value, std::string_view current) {
  for (std::string_view line : lines(value)) {
    if (trim(line).empty() || has_line(current, line)) continue;
    TRY(write_control(dir, name, line));
  }
  return {};
}

// devices.allow takes what devices.list shows. "a" to devices.deny empties the list, but is refused while the
// cgroup has children (security/device_cgroup.c); then the two lists are brought together line by line.
Result<void> write_devices(int dir, std::string_view value, std::string_view current) {
  if (has_line(value, "a *:* rwm")) return write_control(dir, "devices.allow", "a");
  if (write_control(dir, "devices.deny", "a")) current = {};
  for (std::string_view line : lines(current))
    if (!has_line(value, line)) TRY(write_control(dir, "devices.deny", line));
  return write_lines(dir, "devices.allow", value, current);
}

Result<void> write_flag_words(int dir, const std::string& name, std::string_view value, std::string_view current) {
  const auto have = fields(current);
  std::string text;
  for (std::string_view word : fields(value))
    if (std::ranges::find(have, word) == have.end()) text += cat(text.empty() ? "+" : " +", word);
  if (text.empty()) return {};
  return write_control(dir, name, text);
}

Result<void> write_value(int dir, const PlannedProperty& planned, Form form, std::string_view current) {
  switch (form) {
    case Form::kPerLine: return write_lines(dir, planned.name, planned.value, current);
    case Form::kFlagWords: return write_flag_words(dir, planned.name, planned.value, current);
    case Form::kDevices: return write_devices(dir, planned.value, current);
    case Form::kValue:
    case Form::kOomControl: return write_control(dir, planned.name, planned.value);
    case Form::kFreezer:
    case Form::kOwnerOnly: return {};
  }
  return {};
}

bool is_same(Form form, std::string_view value, std::string_view current) {
  if (form != Form::kOomControl) return value == current;
  const bool disabled = current.find("oom_kill_disable 1") != std::string_view::npos;
  return disabled == (value == "1" || value.find("oom_kill_disable 1") != std::string_view::npos);
}

// CRIU's images may hold the whole text of memory.oom_control.
PlannedProperty cleaned(const PlannedProperty& planned, Form form) {
  PlannedProperty out = planned;
  if (form == Form::kOomControl) out.value = is_same(form, planned.value, "oom_kill_disable 1") ? "1" : "0";
  return out;
}

Result<void> apply_value(int dir, const PlannedProperty& planned, const Property& property) {
  if (property.form == Form::kOwnerOnly || property.form == Form::kFreezer || planned.value.empty()) return {};
  auto current = read_control(dir, planned.name);
  if (current && is_same(property.form, planned.value, *current)) return {};
  if (!current && current.error().sys_errno() == ENOENT) {
    if (is_initial(property, planned.value)) return {};
    return fail(std::move(current).error().context("this host does not have it"));
  }
  return write_value(dir, cleaned(planned, property.form), property.form, current ? *current : std::string());
}

Result<void> apply_owner(int dir, const PlannedProperty& planned) {
  if (!planned.perms) return {};
  struct stat st {};
  if (::fstatat(dir, planned.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) < 0) return {};  // absent: nobody can own it
  if ((st.st_uid != planned.perms->uid || st.st_gid != planned.perms->gid) &&
      ::fchownat(dir, planned.name.c_str(), planned.perms->uid, planned.perms->gid, AT_SYMLINK_NOFOLLOW) < 0)
    return fail_sys(Code::kCgroup, "chown", planned.name);
  if ((st.st_mode & 0777) != planned.perms->mode && ::fchmodat(dir, planned.name.c_str(), planned.perms->mode, 0) < 0)
    return fail_sys(Code::kCgroup, "chmod", planned.name);
  return {};
}

}  // namespace

Result<void> apply_properties(const Hierarchy& hierarchy, int dir_fd, const std::string& label, const PlannedDir& dir,
                              bool skip_subtree_control) {
  const auto tables = properties_of(hierarchy);
  std::vector<std::pair<const PlannedProperty*, const Property*>> refused;
  for (const PlannedProperty& planned : dir.properties) {
    const Property* property = find_property(tables, planned.name);
    if (!property || (skip_subtree_control && property->form == Form::kFlagWords)) continue;
    if (!apply_value(dir_fd, planned, *property)) refused.emplace_back(&planned, property);
    TRY_CTX(apply_owner(dir_fd, planned), label);
  }
  // A second round: in a cgroup that has limits already, the order may have to be the other way round
  // (memory.limit_in_bytes above the old memory.memsw.limit_in_bytes).
  for (const auto& [planned, property] : refused) {
    auto done = apply_value(dir_fd, *planned, *property);
    if (done) continue;
    if (is_initial(*property, planned->value)) {
      log::warning(label, "/", planned->name, ": ", done.error().line(), ", ignoring");
      continue;
    }
    return fail(std::move(done).error().with_code(Code::kCgroup).about(cat(label, "/", planned->name)));
  }
  return {};
}

Result<void> apply_perms(int dir_fd, const std::string& label, const Perms& perms) {
  struct stat st {};
  if (::fstat(dir_fd, &st) < 0) return fail_sys(Code::kCgroup, "stat", label);
  if ((st.st_uid != perms.uid || st.st_gid != perms.gid) && ::fchown(dir_fd, perms.uid, perms.gid) < 0)
    return fail_sys(Code::kCgroup, "chown", label);
  if ((st.st_mode & 0777) != perms.mode && ::fchmod(dir_fd, perms.mode) < 0)
    return fail_sys(Code::kCgroup, "chmod", label);
  return {};
}

Result<void> inherit_cpuset(int parent_fd, int dir_fd) {
  for (const char* name : {"cpuset.cpus", "cpuset.mems"}) {
    if (!TRY(read_control(dir_fd, name)).empty()) continue;  // cgroup.clone_children, or somebody's work
    const std::string value = TRY(read_control(parent_fd, name));
    if (!value.empty()) TRY(write_control(dir_fd, name, value));
  }
  return {};
}

std::vector<std::string> needed_controllers(const Hierarchy& hierarchy, const PlannedDir& dir) {
  if (!hierarchy.unified) return {};
  const auto tables = properties_of(hierarchy);
  std::set<std::string> out;
  for (const PlannedProperty& planned : dir.properties) {
    const Property* property = find_property(tables, planned.name);
    if (!property || is_initial(*property, planned.value)) continue;
    if (property->form == Form::kFlagWords) {
      for (std::string_view word : fields(planned.value)) out.emplace(word);
      continue;
    }
    const std::string_view controller = controller_of(planned.name);
    if (!controller.empty()) out.emplace(controller);
  }
  return {out.begin(), out.end()};
}

Result<void> enable_controllers(int dir_fd, const std::string& label, const std::vector<std::string>& controllers) {
  if (controllers.empty()) return {};
  const std::string available = TRY(read_control(dir_fd, "cgroup.controllers"));
  const auto known = fields(available);
  std::string wanted;
  for (const std::string& name : controllers) {
    if (std::ranges::find(known, std::string_view(name)) == known.end())
      return fail(Error(Code::kCgroup,
                        cat("a limit of controller ", name, " is to be restored, which ", label, " does not have"))
                      .about(label));
    wanted += cat(wanted.empty() ? "" : " ", name);
  }
  const std::string current = TRY(read_control(dir_fd, "cgroup.subtree_control"));
  auto done = write_flag_words(dir_fd, "cgroup.subtree_control", wanted, current);
  if (!done) return fail(std::move(done).error().with_code(Code::kCgroup).about(label));
  return {};
}

}  // namespace stasis::cgroups
