// SPDX-License-Identifier: Apache-2.0
#include "engine/procfs/cgroup.h"

#include "engine/base/io.h"
#include "engine/procfs/procfs.h"

namespace stasis::procfs {

namespace {

constexpr std::string_view kDeleted = " (deleted)";

std::unexpected<Error> malformed(std::string_view what, std::string_view line) {
  return fail(Error(Code::kCgroup, cat(what, ": malformed line \"", line, "\"")).about(std::string(what)));
}

Result<CgroupLine> parse_line(std::string_view line) {
  // Only the first two colons separate; a directory name may hold more of them.
  const size_t first = line.find(':');
  const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
  if (second == std::string_view::npos) return malformed("/proc/PID/cgroup", line);
  CgroupLine out;
  const auto id = parse_int<int>(line.substr(0, first));
  if (!id || *id < 0) return malformed("/proc/PID/cgroup", line);
  out.hierarchy_id = *id;
  for (std::string_view name : split(line.substr(first + 1, second - first - 1), ','))
    if (!name.empty()) out.controllers.emplace_back(name);
  std::string_view path = line.substr(second + 1);
  if (path.ends_with(kDeleted)) {
    path.remove_suffix(kDeleted.size());
    out.deleted = true;
  }
  if (!path.starts_with('/')) return malformed("/proc/PID/cgroup", line);
  out.path = std::string(path);
  return out;
}

}  // namespace

Result<std::vector<CgroupLine>> parse_cgroup(std::string_view text) {
  std::vector<CgroupLine> out;
  for (std::string_view line : lines(text)) out.push_back(TRY(parse_line(line)));
  return out;
}

Result<std::vector<CgroupSubsystem>> parse_cgroups(std::string_view text) {
  std::vector<CgroupSubsystem> out;
  for (std::string_view line : lines(text)) {
    if (line.starts_with('#')) continue;
    const auto column = fields(line);
    if (column.size() != 4) return malformed("/proc/cgroups", line);
    const auto id = parse_int<int>(column[1]);
    const auto count = parse_int<unsigned long>(column[2]);
    const auto enabled = parse_int<int>(column[3]);
    if (!id || !count || !enabled) return malformed("/proc/cgroups", line);
    out.push_back({std::string(column[0]), *id, *count, *enabled != 0});
  }
  return out;
}

Result<std::vector<CgroupLine>> read_cgroup(int proc_fd, const std::string& task) {
  return parse_cgroup(TRY(read_file_at(proc_fd, task + "/cgroup")));
}

Result<std::vector<CgroupLine>> read_cgroup(const std::string& task) {
  return parse_cgroup(TRY(read_file_at(AT_FDCWD, "/proc/" + task + "/cgroup")));
}

Result<std::string> read_self_cgroup_text() { return read_file_at(AT_FDCWD, "/proc/self/cgroup"); }

Result<std::string> read_self_mountinfo() { return read_file_at(AT_FDCWD, "/proc/self/mountinfo"); }

Result<std::vector<pid_t>> read_thread_ids(pid_t pid) {
  const auto names = TRY(list_dir(AT_FDCWD, cat("/proc/", pid, "/task")));
  std::vector<pid_t> out;
  for (const std::string& name : names) {
    const auto tid = parse_int<pid_t>(name);
    const auto text = tid ? read_file_at(AT_FDCWD, cat("/proc/", pid, "/task/", name, "/stat")) : std::string();
    const auto stat = text ? parse_stat(*text) : std::unexpected(text.error());
    if (stat && stat->state != 'Z' && stat->state != 'X') out.push_back(*tid);
  }
  return out;
}

Result<Fd> open_cgroup_namespace(const std::string& task) {
  return open_at(AT_FDCWD, "/proc/" + task + "/ns/cgroup", O_RDONLY);
}

}  // namespace stasis::procfs
