// SPDX-License-Identifier: Apache-2.0
// Sets of address ranges: ascending, not overlapping, not touching.
#pragma once

#include <cstdint>
#include <vector>

namespace stasis::memory {

struct Run {
  uint64_t start = 0, end = 0;
  bool operator==(const Run&) const = default;
};
using Runs = std::vector<Run>;

// Appends a run that does not start before the last one ends.
void append(Runs& runs, Run run);
Runs unite(const Runs& a, const Runs& b);
Runs intersect(const Runs& a, const Runs& b);
Runs subtract(const Runs& a, const Runs& b);
uint64_t total(const Runs& runs);  // bytes

}  // namespace stasis::memory
