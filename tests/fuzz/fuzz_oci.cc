// SPDX-License-Identifier: Apache-2.0
// Descriptions as an attacker might write them: config.json → Spec → Plan → YAML → Plan,
// state.json → Container, and the same bytes as a plan file.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "integration/plan.h"
#include "integration/plan_options.h"
#include "integration/plan_yaml.h"
#include "integration/runtimes/runc.h"

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

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const HostInfo host = some_host();
  const auto container = runtimes::runc::parse_state(text, "state.json");
  if (auto spec = oci::parse_spec(text, "config.json")) {
    auto plan = plan_oci(*spec, "/bundle", container ? &*container : nullptr, host);
    if (plan) check_round_trip(*plan, host);
  }
  if (auto plan = from_yaml(text, "plan")) check_round_trip(*plan, host);
  return 0;
}
