// SPDX-License-Identifier: Apache-2.0
// network_namespaces(7), as far as an empty one goes: the loopback device and whether it is up.
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "engine/base/io.h"
#include "engine/namespaces/namespaces.h"
#include "proto/net.pb.h"

namespace stasis::namespaces {
namespace {

Result<Fd> control_socket() {
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail_sys("socket(AF_INET)");
  return Fd(fd);
}

ifreq loopback() {
  ifreq request{};
  request.ifr_name[0] = 'l';
  request.ifr_name[1] = 'o';
  return request;
}

}  // namespace

void find_net_obstacles(const procfs::Procfs& proc, pid_t root, std::vector<Error>& obstacles) {
  const auto text = proc.text(root, "net/dev");
  if (!text) return;
  const auto rows = lines(*text);
  for (size_t i = 2; i < rows.size(); ++i) {  // two lines of headings
    const std::string name(trim(rows[i].substr(0, rows[i].find(':'))));
    // Fallback devices of tunnel modules appear in every namespace, down and without addresses.
    static constexpr std::string_view kFallback[] = {"tunl0",    "gre0", "gretap0", "erspan0", "ip_vti0",
                                                     "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"};
    if (name == "lo" || std::find(std::begin(kFallback), std::end(kFallback), name) != std::end(kFallback)) continue;
    obstacles.push_back(Error(Code::kUnsupportedNamespace, cat("the container's network namespace has a device ", name,
                                                               ", which cannot be checkpointed yet"))
                            .about(cat("network device ", name)));
  }
}

Result<void> dump_net(uint32_t id, image::Writer& images) {
  const Fd socket = TRY(control_socket());
  ifreq request = loopback();
  pb::net_device_entry device;
  device.set_type(pb::LOOPBACK);
  device.set_ifindex(1);
  device.set_name("lo");
  if (::ioctl(socket.get(), SIOCGIFMTU, &request) < 0) return fail_sys("ioctl(SIOCGIFMTU)", "lo");
  device.set_mtu(static_cast<uint32_t>(request.ifr_mtu));
  if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) < 0) return fail_sys("ioctl(SIOCGIFFLAGS)", "lo");
  device.set_flags(static_cast<uint16_t>(request.ifr_flags));
  return images.put(image::Kind::kNetdev, cat("netdev-", id, ".img"), device);
}

Result<void> restore_net(uint32_t id, const image::Reader& images) {
  const std::string name = cat("netdev-", id, ".img");
  if (!images.exists(name)) return {};
  const Fd socket = TRY(control_socket());
  for (const auto& device : TRY(images.read_all<pb::net_device_entry>(image::Kind::kNetdev, name))) {
    if (device.type() != pb::LOOPBACK) {
      log::warning(name, ": network device ", device.name(), " is left to the caller, ignoring");
      continue;
    }
    ifreq request = loopback();
    if (::ioctl(socket.get(), SIOCGIFMTU, &request) == 0 && static_cast<uint32_t>(request.ifr_mtu) != device.mtu()) {
      request.ifr_mtu = static_cast<int>(device.mtu());
      if (::ioctl(socket.get(), SIOCSIFMTU, &request) < 0) return fail_sys("ioctl(SIOCSIFMTU)", "lo");
    }
    if (!(device.flags() & IFF_UP)) continue;
    request = loopback();
    if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) < 0) return fail_sys("ioctl(SIOCGIFFLAGS)", "lo");
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) < 0) return fail_sys("ioctl(SIOCSIFFLAGS)", "lo");
  }
  return {};
}

}  // namespace stasis::namespaces
