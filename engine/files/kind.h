// SPDX-License-Identifier: Apache-2.0
// A kind of open file: how it is recognised, what of it cannot be carried over, its dump
// and its restore. kinds.cc has the one table of all kinds.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/files/locks.h"
#include "engine/image/reader.h"
#include "engine/image/writer.h"
#include "engine/memory/shared.h"
#include "engine/options.h"
#include "engine/procfs/id_map.h"
#include "engine/procfs/procfs.h"
#include "engine/remote/batch.h"
#include "mounts/pty.h"
#include "mounts/table.h"
#include "proto/core.pb.h"
#include "proto/files.pb.h"

namespace stasis::files {

// One descriptor of one task, looked at through a copy of it (pidfd_getfd), or something
// else that is held open: cwd, root, executable, mapped file (fd < 0).
struct Candidate {
  pid_t pid = 0;  // host pid
  int fd = -1;    // number in the task; -1: not a descriptor
  Fd copy;        // our copy; O_PATH for what is not a descriptor
  struct stat st {};
  procfs::FdInfo info;
  std::string link;          // /proc/PID/fd/N
  std::string name() const;  // "pid 12 fd 3 (/tmp/x)"
};

class UnixLook;       // unix_look.h
struct LockedSocket;  // tcp.h

// What a dump of files needs to know of its surroundings.
struct DumpEnv {
  const Options& options;
  const procfs::Procfs& proc;
  pid_t root_pid = 0;                                 // host pid of the root task
  const mounts::Table* mounts = nullptr;              // of the container; null: it shares the engine's
  Fd root_dir;                                        // O_PATH of the mount namespace's root
  std::map<pid_t, pid_t> pids;                        // host pids of the container -> those in its pid namespace
  uint32_t net_ns_id = 0;                             // of the container, in images
  const procfs::UserMaps* users = nullptr;            // of the container's own user namespace; null: the engine's ids
  mutable std::shared_ptr<const UnixLook> unix_look;  // made when the first unix socket is met
  const std::map<ino_t, LockedSocket>* connections = nullptr;  // by inode of the socket; null: nothing is locked yet
  const pb::task_kobj_ids_entry* ids = nullptr;                // of its namespaces in images; null before the dump
  // Of terminals whose masters tasks have open: device of the devpts, index. Found when they are first asked for.
  mutable std::optional<std::set<std::pair<dev_t, uint32_t>>> tty_masters = {};
};

// A descriptor of a task, and the open file description it stands for.
struct Descriptor {
  pid_t pid = 0;  // host pid
  int fd = -1;
  uint32_t id = 0;  // in files.img
};

// Messages in the receive queue of a socket.
struct Packet {
  pb::sk_packet_entry entry;
  std::string bytes;
};
using Packets = std::map<uint32_t, std::vector<Packet>>;

// Collected besides files.img.
struct DumpOutput {
  std::vector<Descriptor> descriptors;  // of all tasks; complete when finish_dump() is called
  image::Writer* images = nullptr;
  memory::SharedObjects* shared = nullptr;
  std::vector<pb::memfd_inode_entry> memfds;
  std::map<std::pair<dev_t, ino_t>, uint32_t> ghosts;  // deleted files -> ghost-file-ID
  std::vector<pb::remap_file_path_entry> remaps;
  std::vector<pb::file_entry> files;
  struct PipeData {
    pb::pipe_data_entry entry;
    std::string bytes;
    std::vector<int64_t> pieces;  // lengths of packets, negative of what is none; empty: no packets
  };
  std::map<uint32_t, PipeData> pipes;  // by pipe id
  std::map<uint32_t, PipeData> fifos;  // the same of named pipes
  std::map<std::pair<dev_t, ino_t>, uint32_t> fifo_ids;
  uint32_t next_file_id = 1;                    // of files.img
  std::map<uint32_t, pb::tty_info_entry> ttys;  // by tty info id
  std::vector<Lock> locks;
  Packets packets;  // by the file id of the socket that has them queued
  // The id of a file that the engine has taken out of a queue (SCM_RIGHTS), dumped if nobody else has it open.
  std::function<Result<uint32_t>(const Candidate&)> id_of;
  std::vector<Fd> in_flight;  // of those files, as long as ids are told by them
  std::vector<pb::tty_data_entry> tty_data;
  struct BpfMapData {
    pb::bpfmap_data_entry entry;
    std::string bytes;  // keys, then values
  };
  std::map<uint32_t, BpfMapData> bpf_maps;             // by the kernel's id
  std::map<std::pair<dev_t, ino_t>, uint32_t> queues;  // POSIX message queues without a name -> mqueue-ID
};

// A memfd of the images.
struct MemfdImage {
  pb::memfd_inode_entry entry;
  uint32_t mode = 0777;
  image::Pagemap pagemap;
  uint64_t huge_page() const;  // bytes; 0: ordinary pages
};

// The descriptors of a task of the images.
struct FileTable {
  uint32_t pid = 0;
  const std::vector<pb::fdinfo_entry>* fds = nullptr;
};

struct RestoreEnv {
  const Options& options;
  const std::map<uint32_t, pb::file_entry>& files;  // of the images, by id
  const std::map<uint32_t, int>& numbers;           // file id -> descriptor in the stubs, once all are open
  const std::map<uint32_t, DumpOutput::PipeData>& pipes;
  const std::map<uint32_t, pb::tty_info_entry>& ttys;
  const pb::manifest_entry* manifest = nullptr;  // null: images of another engine
  const std::vector<Lock>* locks = nullptr;
  const std::map<uint32_t, DumpOutput::PipeData>* fifos = nullptr;
  std::map<uint32_t, Fd> open_fifos;  // by pipe id: for reading and writing, so that no open waits
  const image::Reader* images = nullptr;
  std::vector<FileTable> tables = {};  // of all tasks that live: the root's first
  int proc = -1;                       // a /proc of the task's
  const std::map<uint64_t, MemfdImage>* memfds = nullptr;
  const Packets* packets = nullptr;
  std::map<uint64_t, Fd> open_memfds;
  std::map<uint32_t, Fd> open_bpf_maps;
  std::map<uint32_t, Fd> open_queues;                    // POSIX message queues without a name
  const std::map<uint32_t, uint32_t>* ghosts = nullptr;  // file id -> ghost-file-ID
  std::map<uint32_t, Fd> open_ghosts;
  std::map<uint32_t, std::pair<Fd, Fd>> open_pipes;   // by pipe id: read end, write end; as long as they are needed
  std::map<uint32_t, int> pipe_users;                 // by pipe id: files of the images that are still to be opened
  std::set<std::pair<uint32_t, int>> pipe_ends_used;  // pipe id, O_RDONLY or O_WRONLY
  mounts::Masters masters;                            // of pseudo terminals, by index: made with the mounts
  mounts::Masters masters_unused;                     // made on the way to those
  std::vector<pb::tty_data_entry> tty_data = {};
  std::set<uint32_t> terminals;      // indexes that are set up
  std::set<uint32_t> masters_given;  // indexes whose masters the client has
  std::set<uint32_t> external_ttys;  // tty info ids that are set up
  // Sends the master of a new pseudo terminal to the client; may be empty.
  std::function<Result<void>(int master_fd)> orphan_master;
};

using FileEntries = std::map<uint32_t, pb::file_entry>;  // of the images, by id

struct FileKind {
  const char* name;   // for messages and documents
  pb::fd_types type;  // in images
  bool (*matches)(const Candidate&);
  // Why it cannot be carried over, if so. No side effects: also called before anything is stopped.
  Result<void> (*check)(const Candidate&, const DumpEnv&);
  // Fills the entry (id is set). Called for one descriptor of each open file description.
  Result<void> (*dump)(const Candidate&, const DumpEnv&, DumpOutput&, pb::file_entry&);
  // Makes the open file description again, in the restored root task, whose mounts stand.
  Result<Fd> (*restore)(const pb::file_entry&, RestoreEnv&);

  // What follows is for kinds that need it. All of it is called once per kind, also if there is no such file.
  // While the tasks are frozen, when every descriptor of every task has its id: what refers to other files.
  Result<void> (*finish_dump)(const DumpEnv&, DumpOutput&) = nullptr;
  // In the root stub, when every file is open under its number: what connects files with each other.
  Result<void> (*connect)(RestoreEnv&) = nullptr;
  // In each task, when its descriptors are in place, but not all other tasks exist yet: what is the task's own.
  Result<void> (*in_task)(uint32_t pid, const std::vector<pb::fdinfo_entry>&, const RestoreEnv&) = nullptr;
  // Calls for each task, when all tasks and threads exist; credentials are still the engine's.
  Result<void> (*late)(uint32_t pid, const std::vector<pb::fdinfo_entry>&, const RestoreEnv&, remote::Batch&) = nullptr;
  // Values of an image that make no sense, before anything is touched. For each file of this type.
  Result<void> (*check_image)(const pb::file_entry&, const FileEntries&, const image::Reader&) = nullptr;
};

// Never null: the last kind matches everything and refuses it by name.
const FileKind& kind_of(const Candidate& candidate);
// Null if the image's type is not known or not supported.
const FileKind* kind_of(pb::fd_types type);
const std::vector<const FileKind*>& all_kinds();

extern const FileKind kRegular, kPipe, kFifo, kInotify, kTty, kInetSocket, kMemfd, kUnixSocket, kNetlinkSocket;
extern const FileKind kEventfd, kSignalfd, kTimerfd, kEpoll, kPidfd, kNsFile, kPosixQueue, kFanotify, kDevice, kBpfMap,
    kPacketSocket;

// What FileKind's functions of these names do, for all kinds.
Result<void> finish_dump(const DumpEnv& env, DumpOutput& out);
Result<void> connect(RestoreEnv& env);
Result<void> in_task(uint32_t pid, const std::vector<pb::fdinfo_entry>& fds, const RestoreEnv& env);
Result<void> late(uint32_t pid, const std::vector<pb::fdinfo_entry>& fds, const RestoreEnv& env, remote::Batch& batch);

// For every file of the images.
Result<void> check_file_image(const pb::file_entry& file, const FileEntries& files, const image::Reader& images);
// Of the manifest; null if there is none for this file.
const pb::event_extra* find_event_extra(const pb::manifest_entry* manifest, uint32_t file_id);
const pb::file_extra* find_file_extra(const pb::manifest_entry* manifest, uint32_t file_id);
// Sets what fcntl(F_SETFL) can set.
Result<void> set_flags(int fd, uint32_t flags, std::string_view name);
std::unexpected<Error> corrupt_file(uint32_t id, std::string_view what);
std::unexpected<Error> unsupported(const Candidate& c, std::string_view why);  // "pid 1 fd 2 (x) WHY"

// pidfd.cc: a pidfd that has its place only, until late().
bool is_late_pidfd(const pb::file_entry& file, const RestoreEnv& env);
// The descriptor that the next open(2) of a task will have in late(), and the one after it. A batch's results serve
// once.
std::pair<int, int> free_numbers(const std::vector<pb::fdinfo_entry>& fds);
// owner.cc: who is told of I/O by signals, for all kinds.
struct KnownIds {
  std::set<uint32_t> threads, processes, groups;  // of the images
};
Result<void> check_signals(const Candidate& candidate, const DumpEnv& env);
Result<void> dump_signals(const Candidate& candidate, const DumpEnv& env, pb::file_entry& entry);
Result<void> check_signals_image(const pb::file_entry& file, const KnownIds& known);
// Calls for a task; with those of all tasks, each file is told once.
void restore_signals(uint32_t pid, const RestoreEnv& env, remote::Batch& batch);

// Common to all: flags that F_SETFL can put back, and the refusal of locks.
Result<void> check_owner(const Candidate& candidate);
// Who it belongs to, by the ids of the container.
struct Owner {
  uint32_t uid = 0, gid = 0;
};
Result<Owner> owner_of(const Candidate& candidate, const DumpEnv& env);
void set_no_owner(pb::fown_entry* fown);
// The caller's descriptor for --inherit-fd `key`, or -1.
int inherited_fd(const Options& options, std::string_view key);
constexpr uint32_t kSettableFlags =
    02000 /*O_APPEND*/ | 04000 /*O_NONBLOCK*/ | 040000 /*O_DIRECT*/ | 01000000 /*O_NOATIME*/;

// tty.cc: every terminal of the images that is outside the container is given by the client, or can be made anew.
Result<void> check_external_ttys(const std::map<uint32_t, pb::tty_info_entry>& ttys, const Options& options);
// pipe.cc: contents of all pipes of the images, or all named ones, checked.
Result<std::map<uint32_t, DumpOutput::PipeData>> load_pipes(const image::Reader& images, bool named);
// unix_load.cc: everything queued in sockets of the images, checked.
Result<Packets> load_packets(const image::Reader& images, const std::map<uint32_t, pb::file_entry>& files);
// Every unix socket of the images, and whether those with an end outside can be given one.
Result<void> check_unix_sockets(const std::map<uint32_t, pb::file_entry>& files, const pb::manifest_entry* manifest);
Result<void> check_external_unix(const std::map<uint32_t, pb::file_entry>& files, const Options& options);
// tty_restore.cc: every terminal that is open is one of these, and has one master at most.
Result<void> check_ttys(const std::map<uint32_t, pb::tty_info_entry>& ttys, const FileEntries& files);
// posix_queue.cc: an open POSIX message queue of the images; its kind is that of files with a path.
Result<Fd> restore_posix_queue(const pb::file_entry& file, uint32_t queue, RestoreEnv& env);
// memfd.cc: every memfd of the images, checked.
Result<std::map<uint64_t, MemfdImage>> load_memfds(const image::Reader& images);
// Seals that can be set only when every task has its mappings.
uint32_t late_seals(const pb::memfd_inode_entry& inode);
// regular.cc, used also for cwd, root, executable and mapped files. Of a deleted file: the path it had.
Result<std::string> path_in_container(const Candidate& candidate, const DumpEnv& env);
// Whether this is what the path leads to in the container.
bool leads_to(const DumpEnv& env, const std::string& path, const struct stat& st);
// ghost.cc: files without a name.
bool is_deleted(const Candidate& candidate);
// Another name of a file whose own was removed; scans the file system that it is on.
Result<std::string> find_other_name(const Candidate& candidate, const DumpEnv& env);
// A path of the inode in the directory or below it, on the same file system.
std::optional<std::string> find_inode(const DumpEnv& env, const std::string& directory, dev_t device, ino_t inode);
// The path it had, or why it cannot be kept.
Result<std::string> check_ghost(const Candidate& candidate, const DumpEnv& env);
Result<std::string> dump_ghost(const Candidate& candidate, const DumpEnv& env, DumpOutput& out, uint32_t file_id);
// File id -> ghost-file-ID of all in the images, whose contents are checked.
Result<std::map<uint32_t, uint32_t>> load_ghosts(const image::Reader& images);
Result<Fd> restore_ghost(uint32_t id, const pb::reg_file_entry& reg, RestoreEnv& env);

}  // namespace stasis::files
