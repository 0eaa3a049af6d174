// SPDX-License-Identifier: Apache-2.0
// network_namespaces(7) of a container: its devices, addresses and routes by rtnetlink(7), and
// its sysctls. Everything is done from outside.
#pragma once

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <set>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/image/reader.h"
#include "engine/image/writer.h"
#include "engine/kernel/netlink.h"
#include "engine/options.h"
#include "engine/procfs/procfs.h"
#include "proto/manifest.pb.h"
#include "proto/net.pb.h"

namespace stasis::namespaces {

// Names the kernel would take for a device and that are safe in a path.
bool is_device_name(std::string_view name);

// --- net_state.cc: what there is.
struct NetState {
  std::vector<pb::net_device_entry> devices;
  std::vector<std::string> addresses;        // RTM_NEWADDR messages, as the kernel gave them
  std::vector<std::string> routes, routes6;  // RTM_NEWROUTE of the main table
};
// The network namespace the caller is in. What cannot be carried over is added to `obstacles`.
Result<NetState> read_net(std::vector<Error>& obstacles);
// Firewall tables of that namespace, which would be lost.
void find_firewall_obstacles(const procfs::Procfs& proc, pid_t root, std::vector<Error>& obstacles);

// --- net_address.cc: ifaddr-ID.img, route-ID.img, route6-ID.img are what `ip addr save` and
// `ip route save` write: a number and the messages.
Result<void> dump_messages(uint32_t id, const NetState& state, image::Writer& images);
struct NetMessages {
  std::vector<std::string> addresses, routes;
};
// Checked: kinds, lengths, and devices among `devices`.
Result<NetMessages> load_messages(uint32_t id, const image::Reader& images, const std::set<uint32_t>& devices);
Result<void> restore_addresses(kernel::Netlink& inside, const std::vector<std::string>& addresses);
// In whatever order works: a gateway needs the route to it.
Result<void> restore_routes(kernel::Netlink& inside, std::vector<std::string> routes);

// --- net_sysctl.cc; in the namespace of the caller.
void dump_net_sysctls(image::Writer& images);
// Empty without a manifest.
Result<std::vector<pb::net_sysctl>> load_net_sysctls(const image::Reader& images);
void restore_net_sysctls(const std::vector<pb::net_sysctl>& settings);
void dump_sysctls(pb::netns_entry& entry);
void dump_sysctls(pb::net_device_entry& device);
Result<void> restore_sysctls(const pb::netns_entry& entry);
Result<void> restore_sysctls(const pb::net_device_entry& device);

// --- net.cc
void find_net_obstacles(const procfs::Procfs& proc, pid_t root, std::vector<Error>& obstacles);
// `external`: --external net[...] name; nothing of it is looked at. `empty`: only the loopback is kept.
Result<void> dump_net(uint32_t id, const std::string& external, bool empty, image::Writer& images);

// What restore will make; nothing is touched yet.
struct NetPlan {
  struct Device {
    pb::net_device_entry entry;
    std::string outer;   // veth: name of the host end, may be empty; macvlan, external: the host's device
    std::string bridge;  // veth: what the host end joins, or empty
    uint32_t outer_index = 0, bridge_index = 0;
  };
  pb::netns_entry settings;
  std::vector<pb::net_sysctl> sysctls;
  std::vector<Device> devices;
  NetMessages messages;
};
Result<NetPlan> plan_net(uint32_t id, const image::Reader& images, const Options& options);

// The network of the new namespaces of the root stub, as a scope: what was made on the host's side,
// or taken from there, is undone by the destructor unless commit() was called.
class Network {
 public:
  static Result<Network> create(const NetPlan& plan, int root_pidfd);
  Network(Network&&) = default;
  Network& operator=(Network&&) = delete;
  ~Network();
  // Host ends go up and join their bridges.
  Result<void> connect();
  void commit() { made_.clear(), taken_.clear(); }

 private:
  Network(const NetPlan& plan, kernel::Netlink host, kernel::Netlink inside, Fd host_ns, Fd inside_ns)
      : plan_(&plan),
        host_(std::move(host)),
        inside_(std::move(inside)),
        host_ns_(std::move(host_ns)),
        inside_ns_(std::move(inside_ns)) {}
  Result<void> make(const NetPlan::Device& device);
  Result<void> make_veth(const NetPlan::Device& device);
  Result<void> make_macvlan(const NetPlan::Device& device);
  Result<void> take(const NetPlan::Device& device);
  Result<void> move_inside(uint32_t index, const pb::net_device_entry& entry);
  Result<void> set_up(const pb::net_device_entry& entry);

  struct Made {
    uint32_t index;  // on the host
    uint32_t bridge;
    std::string name;
  };
  struct Taken {
    std::string inner, outer;
  };
  const NetPlan* plan_;
  kernel::Netlink host_, inside_;
  Fd host_ns_, inside_ns_;
  std::vector<Made> made_;
  std::vector<Taken> taken_;
};

}  // namespace stasis::namespaces
