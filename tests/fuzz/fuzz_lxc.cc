// SPDX-License-Identifier: Apache-2.0
// An LXC configuration as an attacker might write it, and its plan; the same bytes as its fstab and as an include.
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "integration/plan_lxc.h"
#include "integration/plan_yaml.h"

using namespace stasis;
using namespace stasis::integration;

std::vector<std::string> fuzz_seeds() {
  return {
      "lxc.uts.name = a\nlxc.rootfs.path = dir:/r\nlxc.mount.entry = /s d\\040x none bind,create=dir 0 0\n"
      "lxc.net.0.type = veth\nlxc.net.0.link = br0\nlxc.idmap = u 0 100000 65536\nlxc.include = /c\n",
      "lxc.mount.fstab = /f\nlxc.cgroup.devices.allow = c 1:3 rwm\nlxc.tty.max = 4\nlxc.include = /d\n",
  };
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  lxc::Files files;
  files.read = [&](const std::string& path) -> Result<std::string> {
    if (path == "/f") return std::string("/a b none bind 0 0\n");
    return text;
  };
  files.list = [](const std::string& path) -> Result<std::vector<std::string>> {
    if (path == "/d") return std::vector<std::string>{"a.conf"};
    errno = ENOTDIR;
    return fail_sys("list", path);
  };
  auto config = lxc::parse_config("/config", files);
  if (!config) return 0;
  HostInfo host;
  host.hierarchies = {{{"memory"}, false, "/sys/fs/cgroup/memory", {}}};
  auto plan = plan_lxc(*config, "a", "/c", nullptr, host);
  if (!plan) return 0;
  const std::string yaml = to_yaml(*plan);
  auto back = from_yaml(yaml, "plan");
  if (back && to_yaml(*back) != yaml) std::abort();
  return 0;
}
