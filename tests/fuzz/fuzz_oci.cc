// SPDX-License-Identifier: Apache-2.0
// Descriptions as an attacker might write them: config.json → Spec → Plan → YAML → Plan,
// state.json → Container, and the same bytes as a plan file.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "integration/plan.h"
#include "integration/plan_options.h"
#include "integration/plan_yaml.h"
#include "integration/runtimes/oci_runtime.h"
#include "integration/runtimes/podman.h"

using namespace stasis;
using namespace stasis::integration;

namespace {

HostInfo some_host() {
  HostInfo host;
  host.hierarchies = {{{"memory"}, false, "/sys/fs/cgroup/memory", {}}, {{}, true, "/sys/fs/cgroup/unified", {}}};
  host.own = {{"memory", "/"}, {"", "/"}};
  host.is_masked_file = [](const std::string&) { return true; };
  return host;
}

// What was planned here must be read back, and mean the same.
void check_round_trip(const Plan& plan, const HostInfo& host) {
  const std::string text = to_yaml(plan);
  auto back = from_yaml(text, "plan");
  if (back && to_yaml(*back) != text) std::abort();
  pb::criu_opts opts;
  (void)plan_to_options(plan, PlanFor::kDump, host, opts);
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  return {
      R"({"process":{"args":["sh"],"rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":2}]},"root":{"path":"r"},"mounts":[
{"destination":"/d","type":"bind","source":"s","options":["rbind"]},{"destination":"/sys/fs/cgroup","type":"cgroup"}],
"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/n"}],"maskedPaths":["/proc/keys"],"cgroupsPath":"/c"}})",
      R"({"id":"a","init_process_pid":5,"init_process_start":9,"config":{"rootfs":"/r","labels":["bundle=/b"]},
"cgroup_paths":{"memory":"/sys/fs/cgroup/memory/a"},"external_descriptors":["pipe:[1]"],"root":{"path":"r"}})",
      R"({"pid":5,"process-start-time":9,"bundle":"/b","rootfs":"/r","cgroup-path":"/c"})",
      R"([{"id":"0123456789ab","names":["web"],"metadata":"{}"}])",
      "plan: 1\ncontainer: {id: a, runtime: runc, pid: 4}\nroot: /r\ncgroups:\n  mode: soft\n  roots: [/n, "
      "\"memory:/m\"]\n"
      "namespaces:\n  network: empty\nmounts:\n- {container: /a, name: b, source: /c}\nstdio: [\"pipe:[1]\"]\n",
  };
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const HostInfo host = some_host();
  for (const auto& runtime : runtimes::oci_runtimes()) (void)runtimes::parse_record(runtime, text, "record");
  (void)runtimes::parse_storage(text, "containers.json");
  const auto container = runtimes::parse_record(runtimes::oci_runtimes()[0], text, "state.json");
  if (auto spec = oci::parse_spec(text, "config.json")) {
    auto plan = plan_oci(*spec, "/bundle", container ? &*container : nullptr, host);
    if (plan) check_round_trip(*plan, host);
  }
  if (auto plan = from_yaml(text, "plan")) check_round_trip(*plan, host);
  return 0;
}
