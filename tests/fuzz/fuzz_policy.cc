// SPDX-License-Identifier: Apache-2.0
// stasis.yaml with anything in it, applied to a plan.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "integration/plan_yaml.h"
#include "integration/policy.h"

using namespace stasis;
using namespace stasis::integration;

std::vector<std::string> fuzz_seeds() {
  return {
      "engine: /usr/sbin/criu\nsupervisor: [/bin/s]\nmounts:\n- {container: /a, to: /b}\n- {source: /s, to: /t, name: "
      "\"w*\"}\n"
      "cgroups:\n- {name: \"w[ab]*\", roots: [/n, \"cpu:/m\"], mode: soft}\n",
  };
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto policy = parse_policy(std::string_view(reinterpret_cast<const char*>(data), size), "stasis.yaml");
  if (!policy) return 0;
  Plan plan;
  plan.id = "web";
  plan.mounts = {{"/a", "a", "/s/x", "", ""}, {"/c", "c", "", "memory", ""}};
  apply_policy(*policy, PlanFor::kRestore, plan);
  (void)to_yaml(plan);
  return 0;
}
