// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/runs.h"

#include <algorithm>

namespace stasis::memory {

void append(Runs& runs, Run run) {
  if (run.start >= run.end) return;
  if (!runs.empty() && runs.back().end >= run.start)
    runs.back().end = std::max(runs.back().end, run.end);
  else
    runs.push_back(run);
}

Runs unite(const Runs& a, const Runs& b) {
  Runs all(a.size() + b.size()), out;
  std::merge(a.begin(), a.end(), b.begin(), b.end(), all.begin(), [](Run x, Run y) { return x.start < y.start; });
  for (const Run& run : all) append(out, run);
  return out;
}

Runs intersect(const Runs& a, const Runs& b) {
  Runs out;
  for (size_t i = 0, k = 0; i < a.size() && k < b.size();) {
    append(out, {std::max(a[i].start, b[k].start), std::min(a[i].end, b[k].end)});
    a[i].end < b[k].end ? ++i : ++k;
  }
  return out;
}

Runs subtract(const Runs& a, const Runs& b) {
  Runs out;
  size_t k = 0;
  for (Run left : a) {
    while (k < b.size() && b[k].end <= left.start) ++k;
    for (size_t j = k; j < b.size() && b[j].start < left.end; ++j) {
      append(out, {left.start, std::min(left.end, b[j].start)});
      left.start = std::max(left.start, b[j].end);
    }
    append(out, left);
  }
  return out;
}

uint64_t total(const Runs& runs) {
  uint64_t bytes = 0;
  for (const Run& run : runs) bytes += run.end - run.start;
  return bytes;
}

}  // namespace stasis::memory
