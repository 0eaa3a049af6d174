// SPDX-License-Identifier: Apache-2.0
// All images of a checkpoint, read and checked, before anything is touched.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "engine/base/result.h"
#include "engine/files/kind.h"
#include "engine/image/pagemap.h"
#include "engine/image/reader.h"
#include "engine/memory/runs.h"
#include "engine/memory/shared.h"
#include "engine/namespaces/namespaces.h"
#include "engine/namespaces/time.h"
#include "engine/procfs/id_map.h"
#include "proto/cgroup.pb.h"
#include "proto/core.pb.h"
#include "proto/mm.pb.h"
#include "proto/mounts.pb.h"

namespace stasis::tasks {

// task_core_entry.task_state. Debian's crit names 3 and 6 the other way round; CRIU's compel
// header says: 1 alive, 2 dead (what a dumped zombie has), 3 stopped, 6 zombie.
constexpr uint32_t kTaskAlive = 1, kTaskDead = 2, kTaskStopped = 3, kTaskZombie = 6;

// Contents of a task's memory: pages of a pages file, its own or that of a task it has them from.
struct PageSource {
  uint64_t start = 0, end = 0;  // addresses
  uint32_t pages_id = 0;
  uint64_t offset = 0;  // in the file
};

struct TaskImage {
  pb::pstree_entry node;
  bool zombie = false;
  std::vector<uint32_t> tids;                 // of the threads: leader first
  std::vector<pb::core_entry> threads;        // in that order
  std::vector<const pb::task_extra*> extras;  // one per thread; null if not ours
  pb::task_kobj_ids_entry ids;
  pb::mm_entry mm;
  pb::fs_entry fs;
  std::vector<pb::fdinfo_entry> fds;  // none if `shares_files`
  bool shares_files = false;          // the file table is that of a task before it
  image::Pagemap pagemap;
  memory::Runs inherited;                    // pages that are still its parent's too
  std::vector<PageSource> sources;           // ascending: pagemap, and what of `inherited` is not in it
  const pb::memory_extra* memory = nullptr;  // null if there is nothing
  bool ia32 = false;                         // all its threads run 32-bit code
  const pb::task_core_entry& tc() const { return threads.front().tc(); }
};

struct Snapshot {
  const image::Reader* images = nullptr;
  std::vector<TaskImage> tasks;  // as in pstree.img: root first
  std::map<uint32_t, pb::file_entry> files;
  std::map<uint32_t, files::DumpOutput::PipeData> pipes;
  std::map<uint32_t, files::DumpOutput::PipeData> fifos;
  memory::SharedImages shared;                       // shared anonymous memory
  std::map<uint64_t, namespaces::Segment> segments;  // System V, by id
  std::map<uint64_t, files::MemfdImage> memfds;
  files::Packets packets;
  std::map<uint32_t, uint32_t> ghosts;      // file id -> ghost-file-ID
  std::map<uint32_t, uint32_t> late_seals;  // file id of a memfd -> seals to be added when all is mapped
  std::map<uint32_t, pb::tty_info_entry> ttys;
  std::vector<files::Lock> locks;
  std::vector<pb::tty_data_entry> tty_data;
  std::vector<pb::mnt_entry> mounts;
  pb::seccomp_entry seccomp;
  std::optional<pb::cgroup_entry> cgroup;
  unsigned long namespaces = 0;              // CLONE_NEW* that the container has for itself
  std::optional<procfs::UserMaps> users;     // of its user namespace, if that is among them
  std::optional<namespaces::Clocks> clocks;  // at the dump; of its time namespace, if that is among them
};

Result<Snapshot> load(const image::Reader& images);

}  // namespace stasis::tasks
