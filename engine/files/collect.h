// SPDX-License-Identifier: Apache-2.0
// Every open file of the container: descriptors of all tasks, and what else holds a file
// open (cwd, root, executable, mapped files). Finds which descriptors share one open file
// description (kcmp(2) KCMP_FILE), gives each description an id and dumps it once.
#pragma once

#include <vector>

#include "engine/files/kind.h"
#include "engine/tasks/frozen_tree.h"

namespace stasis::files {

// The file table of one process, and what its other images refer to.
struct TaskFiles {
  std::vector<pb::fdinfo_entry> fds;
  uint32_t cwd_id = 0, root_id = 0, exe_id = 0;
};

// The descriptors of one process, as candidates. `pidfd` of the process.
Result<std::vector<Candidate>> read_fds(const procfs::Procfs& proc, pid_t pid, int pidfd);
// cwd, root, exe or map_files/A-B of a process, opened through its /proc link.
Result<Candidate> read_special(const procfs::Procfs& proc, pid_t pid, const std::string& link);

// Every obstacle in the open files of one process.
void find_obstacles(const DumpEnv& env, pid_t pid, int pidfd, std::vector<Error>& obstacles);

// The same for a file that is mapped at [start, end).
void find_mapped_obstacles(const DumpEnv& env, pid_t pid, uint64_t start, uint64_t end, std::vector<Error>& obstacles);

class Collector {
 public:
  Collector(const DumpEnv& env, DumpOutput& out) : env_(env), out_(out) {
    out_.id_of = [this](const Candidate& c) { return id_of(c); };
  }
  Collector(const Collector&) = delete;
  ~Collector() { out_.id_of = nullptr; }

  // `descriptors`: unless the file table is that of a process that was dumped before.
  Result<TaskFiles> dump_task(const tasks::Process& process, bool descriptors);
  // cwd and root of a thread that has its own.
  Result<TaskFiles> dump_thread(pid_t pid, pid_t tid);
  // The id of the file that is mapped there in the process, to be opened with `open_flags`.
  Result<uint32_t> dump_mapped(pid_t pid, const procfs::Map& map, int open_flags);

 private:
  struct Known {
    pid_t pid;
    int fd;
    uint32_t id;
  };
  Result<uint32_t> id_of(const Candidate& c);
  Result<uint32_t> dump_path(Candidate c, int open_flags);

  const DumpEnv& env_;
  DumpOutput& out_;
  // Descriptors of one inode, one per description, compared by kcmp.
  std::map<std::pair<dev_t, ino_t>, std::vector<Known>> known_;
  // Path-only files, shared by (inode, mount, flags): nothing but the path matters for them.
  std::map<std::tuple<dev_t, ino_t, int, int, std::string>, uint32_t> paths_;
  // By device, inode, path and flags as smaps has them: tasks of one program map the same files.
  std::map<std::tuple<uint32_t, uint32_t, uint64_t, std::string, int>, uint32_t> mapped_;
};

}  // namespace stasis::files
