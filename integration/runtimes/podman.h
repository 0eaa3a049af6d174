// SPDX-License-Identifier: Apache-2.0
// podman knows names; who runs under one is on record with the OCI runtime below it. Only the list of
// containers in its storage is read: its database is its own.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "integration/runtimes/container.h"

namespace stasis::integration::runtimes {

struct StoredContainer {
  std::string id;
  std::vector<std::string> names;
  // A name, the id, or its beginning as `podman ps` shows it (12 digits).
  bool is(std::string_view wanted) const;
};
// containers.json of containers/storage. `file` names it in errors.
Result<std::vector<StoredContainer>> parse_storage(std::string_view json, const std::string& file);

// Every list of containers below the storage directories.
Result<std::vector<StoredContainer>> stored_containers(const FindOptions& options);
Result<std::optional<Container>> find_podman(const std::string& name, const FindOptions& options);

}  // namespace stasis::integration::runtimes
