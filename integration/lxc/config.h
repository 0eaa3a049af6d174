// SPDX-License-Identifier: Apache-2.0
// An LXC container configuration, lxc.container.conf(5): "key = value" lines with includes. Values are typed
// and checked; what no member holds stays in `entries` as it was written, known key or not.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace stasis::integration::lxc {

struct From {  // where something was said
  std::string file;
  int line = 0;
};
std::string to_string(const From& from);  // "config:12"

struct Entry {
  std::string key, value;
  From from;
};

struct MountEntry {  // a line of fstab(5)
  std::string source;
  std::string destination;  // relative to the rootfs, or absolute on the host
  std::string type;
  std::vector<std::string> options;
  From from;

  bool has(std::string_view option) const;
  bool is_bind() const { return has("bind") || has("rbind"); }
};

struct Network {     // lxc.net.N
  std::string type;  // none empty veth macvlan ipvlan vlan phys
  std::string flags, link, name, hwaddr, mtu, script_up, script_down;
  std::string mode;       // lxc.net.N.TYPE.mode
  std::string veth_pair;  // name of the host's end
  std::string vlan_id;
  std::vector<std::string> ipv4, ipv6;
  std::string ipv4_gateway, ipv6_gateway;
  From from;
};

struct IdMap {
  char kind = 'u';  // u g b
  uint32_t inside = 0, outside = 0, count = 0;
};

struct Limit {  // lxc.cgroup.KEY, lxc.cgroup2.KEY, lxc.prlimit.NAME, lxc.sysctl.NAME, lxc.proc.NAME
  std::string key, value;
  From from;
};

struct Init {
  std::string cmd, cwd;
  uint32_t uid = 0, gid = 0;
  std::vector<uint32_t> groups;
};

struct Terminals {
  uint32_t tty_max = 0, pty_max = 1024;
  std::string tty_dir;
  std::string console_path;  // "": LXC's own; "none"; a device or file
  std::string console_logfile;
};

struct Config {
  std::string rootfs_path;  // without "dir:", else "TYPE:..." as written
  std::string rootfs_mount, rootfs_options;
  std::string uts_name, arch;
  std::vector<MountEntry> mounts;  // lxc.mount.fstab's lines are among them
  std::vector<std::string> mount_auto;
  std::vector<Limit> cgroup, cgroup2, prlimits, sysctls, proc;
  std::string cgroup_dir;  // lxc.cgroup.dir.container, or lxc.cgroup.dir
  bool cgroup_relative = false;
  std::map<uint32_t, Network> networks;
  Init init;
  std::vector<IdMap> idmaps;
  Terminals terminals;
  std::vector<std::string> environment;
  std::vector<std::string> cap_drop, cap_keep;
  std::string seccomp_profile, apparmor_profile, selinux_context;
  std::vector<std::string> namespaces_cloned, namespaces_kept;
  std::map<std::string, std::string> namespaces_shared;  // "net" → path, pid or container
  std::vector<std::pair<std::string, std::string>> hooks;
  bool autodev = true, no_new_privs = false;
  std::vector<Entry> entries;        // all lines, in order
  std::vector<std::string> unknown;  // keys that lxc.container.conf(5) does not have
};

// How files are read; tests give their own. `list` gives the *.conf names of a directory in order, or ENOTDIR.
struct Files {
  std::function<Result<std::string>(const std::string& path)> read;
  std::function<Result<std::vector<std::string>>(const std::string& path)> list;
};
Files real_files();

Result<Config> parse_config(const std::string& path, const Files& files);
Result<Config> read_config(const std::string& path);
// One line of fstab(5) with its \040 escapes.
Result<MountEntry> parse_mount_entry(std::string_view text, From from);

}  // namespace stasis::integration::lxc
