// SPDX-License-Identifier: Apache-2.0
// What one checkpoint or restore is asked to do. Every door (stasis, the criu command
// line, RPC, config files) fills the one message pb::criu_opts; validate() in
// engine/cli/validate.h turns it into this const value. Units and defaults are criu(8)'s.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/log.h"

namespace stasis {

// --manage-cgroups[=MODE], criu(8). kIgnore: cgroups are neither dumped nor restored.
enum class CgroupMode { kIgnore, kNone, kProps, kSoft, kFull, kStrict };

// One --cgroup-root [CONTROLLER[,CONTROLLER...]:]PATH.
struct CgroupRoot {
  std::vector<std::string> controllers;  // empty: default for all; "name=systemd" for named v1 hierarchies
  std::string path;                      // absolute, normalised: no "..", no double slash, no trailing slash but "/"
};

// One --external / --ext-mount-map. Only mnt, net, pid, tty, dev, file, unix, veth,... keys occur;
// unknown strings are kept and never match (LXC passes junk).
struct External {
  std::string kind;   // "mnt", "net", "pid", "tty", ...; empty for an unknown string
  std::string key;    // between the brackets
  std::string value;  // after "]:" ; may be empty
};

struct InheritFd {
  std::string key;  // "pipe:[123]", "tty[8800:1a]", "extRootNetNS", a path
  int fd = -1;      // in this process
};

struct JoinNs {
  std::string ns;    // net uts time ipc user mnt cgroup
  std::string file;  // path or decimal pid
  std::string extra;
};

// The user that a service works for when it is not root: tasks and images must be entirely his own.
struct Client {
  uint32_t uid = 0, gid = 0;
  std::vector<uint32_t> groups;  // supplementary, ascending
  uint64_t cap_bounding = 0;     // of the client's own process
};

// Who is the parent of the restored root task, and what the engine does then.
enum class RestoreParent {
  kWait,      // child of the engine; the engine reaps the tree and returns its exit status
  kDetached,  // child of the engine, which exits (-d)
  kSibling,   // child of the engine's parent, by CLONE_PARENT (rst_sibling, --restore-sibling)
  kExecCmd,   // child of the engine, which becomes exec_cmd
};

// A process of a container that a runtime made, which becomes the root of the restored tree (engine/into.h).
// No door fills it: only who started the process has its socket.
struct IntoTask {
  pid_t pid = 0;  // 0: the engine makes the root itself
  Fd pidfd;
  Fd socket;                 // it waits at the other end
  unsigned long joined = 0;  // CLONE_NEW* of its namespaces that are not the container's own
  std::string scaffold;      // a mount of the container that nobody but the waiting process needs
};

struct Options {
  pid_t pid = 0;            // dump: root of the tree
  Fd images_dir;            // O_DIRECTORY | O_PATH-free; always valid after validate()
  Fd work_dir;              // logs, stats
  std::string images_path;  // for messages only
  std::string root;         // restore: new root, a mount point in our mount namespace; empty: "/"

  bool replace_images = false;  // dump over an earlier checkpoint in images_dir, as CRIU does
  bool leave_running = false;
  bool leave_stopped = false;
  bool shell_job = false;
  bool tcp_established = false;
  bool tcp_close = false;           // restore: connections are over
  bool tcp_skip_in_flight = false;  // dump: connections not yet accepted are dropped
  bool ext_unix_sk = false;
  bool file_locks = false;
  bool link_remap = false;
  bool evasive_devices = false;
  bool orphan_pts_master = false;
  bool allow_uprobes = false;
  bool notify_scripts = false;
  bool auto_ext_mnt = false;  // --external mnt[]
  bool ext_sharing = false;
  bool ext_masters = false;

  CgroupMode cgroup_mode = CgroupMode::kIgnore;
  std::vector<CgroupRoot> cgroup_roots;
  bool cgroup_roots_required = false;  // a user named them: images without cgroups are an error then
  std::string freeze_cgroup;           // directory, as given
  std::string cgroup_yard;
  std::vector<std::string> cgroup_dump_controllers;

  std::vector<External> externals;     // later entries win
  std::vector<InheritFd> inherit_fds;  // first match wins
  std::vector<JoinNs> join_ns;
  uint32_t empty_ns = 0;  // CLONE_NEW* bits: not dumped, restored empty
  std::vector<std::string> skip_mounts;
  std::vector<std::string> enable_fs;

  RestoreParent parent = RestoreParent::kWait;
  IntoTask into;
  std::vector<std::string> exec_cmd;
  std::string pidfile;
  std::string lsm_profile;
  std::string action_script;
  uint32_t timeout_seconds = 10;  // for freezing
  uint64_t ghost_limit = 1u << 30;
  bool build_ids = true;      // of executable files, so that others are noticed
  bool compare_modes = true;  // restore: permissions must be as they were
  bool mtimes = false;        // files must be unchanged since the checkpoint
  bool force_irmap = false;   // look for watched inodes below irmap_scan_paths, whatever their handles say
  std::vector<std::string> irmap_scan_paths;  // in the container, besides its mounts

  std::optional<Client> client;  // the engine has this user's rights then, and next to no capabilities

  std::string log_file;
  log::Level log_level = log::Level::kWarning;
  bool display_stats = false;
};

}  // namespace stasis
