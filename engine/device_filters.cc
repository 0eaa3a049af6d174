// SPDX-License-Identifier: Apache-2.0
#include "engine/device_filters.h"

#include "cgroups/control_file.h"
#include "cgroups/path.h"
#include "engine/base/log.h"
#include "engine/kernel/bpf.h"

namespace stasis {
namespace {

Result<void> dump_below(int root, const std::string& path, const pb::cgroup_dir_entry& entry, image::Writer& images) {
  const std::string about = cat("cgroup ", path);
  const auto dir = cgroups::open_dir(root, path);
  if (!dir) return {};  // removed meanwhile
  pb::device_filter filter;
  filter.set_path(path);
  for (auto& program : TRY(kernel::read_device_programs(dir->get(), about))) filter.add_programs(std::move(program));
  if (filter.programs_size() > 0) images.add_device_filter(filter);
  for (const auto& child : entry.children())
    TRY(dump_below(root, cgroups::join_path(path, child.dir_name()), child, images));
  return {};
}

}  // namespace

void find_device_filter_obstacles(pid_t root, const std::string& yard, std::vector<Error>& obstacles) {
  const auto membership = cgroups::read_membership(root);
  const auto hierarchies = cgroups::Hierarchies::read(yard);
  if (!membership || !hierarchies) return;  // the dump says it
  const auto path = membership->find("");
  const auto unified = hierarchies->find("");
  if (path == membership->end() || path->second == "/" || !unified) return;
  const auto dir = cgroups::open_dir(hierarchies->root_fd(*unified), path->second);
  if (!dir) return;
  auto programs = kernel::read_device_programs(dir->get(), cat("cgroup ", path->second));
  if (!programs) obstacles.push_back(std::move(programs).error());
}

Result<void> dump_device_filters(const cgroups::Hierarchies& hierarchies, const pb::cgroup_entry& entry,
                                 image::Writer& images) {
  const auto unified = hierarchies.find("");
  if (!unified) return {};
  for (const auto& controller : entry.controllers()) {
    if (controller.cnames_size() > 1 || (controller.cnames_size() == 1 && !controller.cnames(0).empty())) continue;
    for (const auto& dir : controller.dirs())
      TRY(dump_below(hierarchies.root_fd(*unified), cgroups::join_path("/", dir.dir_name()), dir, images));
  }
  return {};
}

Result<std::map<std::string, std::vector<std::string>>> load_device_filters(const pb::manifest_entry* manifest) {
  std::map<std::string, std::vector<std::string>> out;
  if (!manifest) return out;
  for (const auto& filter : manifest->device_filters()) {
    for (const auto& program : filter.programs())
      if (auto good = kernel::check_device_program(program, cat("cgroup ", filter.path())); !good)
        return fail(std::move(good).error().with_code(Code::kImageCorrupt));
    out[filter.path()] = {filter.programs().begin(), filter.programs().end()};
  }
  return out;
}

Result<void> restore_device_filters(const cgroups::Ground& ground) {
  for (const auto& [fd, dir] : TRY(ground.wanting_programs())) {
    const std::string about = cat("cgroup ", dir->path);
    for (const std::string& program : dir->device_programs)
      TRY(kernel::attach_device_program(fd.get(), program, about));
    log::debug(about, ": ", dir->device_programs.size(), " device programs");
  }
  return {};
}

}  // namespace stasis
