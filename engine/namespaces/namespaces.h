// SPDX-License-Identifier: Apache-2.0
// Which namespaces(7) the container has for itself, and how to look into them. Each kind's
// own state (uts.cc, ipc.cc, net.h) has its dump and its restore side by side; the mount
// namespace is the mounts room's, the cgroup namespace the cgroups room's.
#pragma once

#include <sched.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/image/reader.h"
#include "engine/image/writer.h"
#include "engine/memory/shared.h"
#include "engine/options.h"
#include "engine/procfs/id_map.h"
#include "engine/procfs/procfs.h"
#include "proto/core.pb.h"

namespace stasis::namespaces {

struct Kind {
  const char* name;    // in /proc/PID/ns
  unsigned long flag;  // CLONE_NEW*
};
// Every kind.
const std::vector<Kind>& all_kinds();

struct Owned {
  unsigned long flags = 0;   // CLONE_NEW* of what differs from the engine's
  std::string external_net;  // --external net[INODE]:NAME of the root's net namespace
  procfs::NsId net;
  std::optional<procfs::UserMaps> users;  // of a user namespace of its own
};

// Compares the root task with the engine, and every other task with the root.
Result<Owned> look(const procfs::Procfs& proc, pid_t root, const std::vector<pid_t>& others, const Options& options,
                   std::vector<Error>& obstacles);

// Namespace ids in images: those of the engine, and those of the container, which differ
// where `owned` says so. ids-PID.img and the inventory carry them.
void set_engine_ids(pb::task_kobj_ids_entry& ids);
void set_container_ids(const Owned& owned, pb::task_kobj_ids_entry& ids);
// CLONE_NEW* of the namespaces in which `ids` differ from `engine_ids`.
unsigned long owned_flags(const pb::task_kobj_ids_entry& ids, const pb::task_kobj_ids_entry& engine_ids);

// Enters namespaces of a process and comes back (with cwd and root) at the end of the scope.
// Only for a single-threaded engine.
class Inside {
 public:
  static Result<Inside> enter(int pidfd, unsigned long flags);
  // Namespaces by descriptor, each with its CLONE_NEW*.
  static Result<Inside> join(const std::vector<std::pair<int, int>>& namespaces);
  Inside(Inside&&) = default;
  Inside& operator=(Inside&&) = delete;
  ~Inside();

 private:
  Inside() = default;
  static Result<Inside> remember(unsigned long flags);
  std::vector<std::pair<Fd, unsigned long>> back_;
  Fd root_, cwd_;
};

// Are there semaphore sets in the process's ipc namespace?
Result<bool> has_semaphores(int pidfd);
// Obstacles inside the container's net namespace.
void find_obstacles(const procfs::Procfs& proc, pid_t root, int pidfd, const Owned& owned, const Options& options,
                    std::vector<Error>& obstacles);
Result<void> dump(int pidfd, const Owned& owned, const Options& options, const pb::task_kobj_ids_entry& ids,
                  image::Writer& images, memory::SharedObjects& shared);
// In the restored root task, inside its new namespaces, before its mounts. The network is made from outside: net.h.
Result<void> restore(const image::Reader& images, unsigned long flags, const pb::task_kobj_ids_entry& ids);
// What tasks have made in them, after their settings; once, in a task of theirs.
Result<void> restore_objects(const image::Reader& images, unsigned long flags, const pb::task_kobj_ids_entry& ids);

// uts.cc
Result<void> dump_uts(uint32_t id, image::Writer& images);
Result<void> restore_uts(uint32_t id, const image::Reader& images);
// ipc.cc
Result<void> dump_ipc(uint32_t id, image::Writer& images, memory::SharedObjects& shared, const procfs::UserMaps* users);
Result<void> restore_ipc_objects(uint32_t id, const image::Reader& images);
Result<void> restore_ipc(uint32_t id, const image::Reader& images);
// sysv_shm.cc
struct Segment {
  uint64_t size = 0;
  uint64_t huge_page = 0;  // bytes; 0: ordinary pages
  bool removed = false;    // lives only as long as somebody has it attached
};
Result<void> dump_shm(uint32_t id, image::Writer& images, memory::SharedObjects& shared, const procfs::UserMaps* users);
// Every segment of the images, checked, by its id.
Result<std::map<uint64_t, Segment>> load_segments(uint32_t id, const image::Reader& images);
Result<void> restore_shm(uint32_t id, const image::Reader& images);
// sysv_queues.cc: semaphore sets and message queues
Result<void> dump_queues(uint32_t id, image::Writer& images, const procfs::UserMaps* users);
Result<void> restore_queues(uint32_t id, const image::Reader& images);

}  // namespace stasis::namespaces
