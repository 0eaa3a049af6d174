// SPDX-License-Identifier: Apache-2.0
// kernel/user_namespace.c: map_write(), mappings_overlap().
#include "engine/procfs/id_map.h"

#include "engine/base/strings.h"

namespace stasis::procfs {
namespace {

constexpr size_t kMaxExtents = 340;  // UID_GID_MAP_MAX_EXTENTS

bool overlap(uint32_t a, uint32_t b, uint32_t count_a, uint32_t count_b) {
  return a < uint64_t{b} + count_b && b < uint64_t{a} + count_a;
}

}  // namespace

std::optional<uint32_t> IdMap::inside(uint32_t outer) const {
  for (const auto& e : extents)
    if (outer >= e.lower && outer - e.lower < e.count) return e.first + (outer - e.lower);
  return std::nullopt;
}

std::optional<uint32_t> IdMap::outside(uint32_t inner) const {
  for (const auto& e : extents)
    if (inner >= e.first && inner - e.first < e.count) return e.lower + (inner - e.first);
  return std::nullopt;
}

std::string IdMap::text() const {
  std::string out;
  for (const auto& e : extents) out += cat(e.first, " ", e.lower, " ", e.count, "\n");
  return out;
}

Result<IdMap> parse_id_map(std::string_view text) {
  IdMap map;
  for (auto line : lines(text)) {
    const auto f = fields(line);
    if (f.empty()) continue;
    const auto first = f.size() == 3 ? parse_int<uint32_t>(f[0]) : std::nullopt;
    const auto lower = f.size() == 3 ? parse_int<uint32_t>(f[1]) : std::nullopt;
    const auto count = f.size() == 3 ? parse_int<uint32_t>(f[2]) : std::nullopt;
    if (!first || !lower || !count)
      return fail(Code::kInternal, cat("/proc id map: cannot parse \"", line.substr(0, 120), "\""));
    map.extents.push_back({*first, *lower, *count});
  }
  return map;
}

bool is_valid(const IdMap& map) {
  if (map.extents.empty() || map.extents.size() > kMaxExtents) return false;
  for (size_t i = 0; i < map.extents.size(); ++i) {
    const auto& e = map.extents[i];
    // (uint32_t)-1 is no id.
    if (e.count == 0 || uint64_t{e.first} + e.count > UINT32_MAX || uint64_t{e.lower} + e.count > UINT32_MAX)
      return false;
    for (size_t j = 0; j < i; ++j) {
      const auto& o = map.extents[j];
      if (overlap(e.first, o.first, e.count, o.count) || overlap(e.lower, o.lower, e.count, o.count)) return false;
    }
  }
  return true;
}

}  // namespace stasis::procfs
