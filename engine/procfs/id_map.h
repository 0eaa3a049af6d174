// SPDX-License-Identifier: Apache-2.0
// /proc/PID/uid_map and gid_map, user_namespaces(7): which ids inside a user namespace are which outside.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace stasis::procfs {

struct IdExtent {
  uint32_t first = 0, lower = 0, count = 0;  // first id inside, first id outside, how many
};

struct IdMap {
  std::vector<IdExtent> extents;
  std::optional<uint32_t> inside(uint32_t outer) const;
  std::optional<uint32_t> outside(uint32_t inner) const;
  std::string text() const;  // as the file takes it
};
Result<IdMap> parse_id_map(std::string_view text);
// As the kernel checks it: 1 to 340 extents, none empty, none beyond the last id, no id twice on either side.
bool is_valid(const IdMap& map);

struct UserMaps {
  IdMap uid, gid;
  bool setgroups = true;  // /proc/PID/setgroups is "allow"
  uint32_t owner = 0;     // user of the host who has all rights in it, ioctl_ns(2) NS_GET_OWNER_UID
  // setfsuid(2)'s view of root: id 0, or the first id there is.
  uint32_t first_uid() const { return uid.outside(0) ? 0 : uid.extents.front().first; }
  uint32_t first_gid() const { return gid.outside(0) ? 0 : gid.extents.front().first; }
};

}  // namespace stasis::procfs
