// SPDX-License-Identifier: Apache-2.0
#include "integration/runtimes/podman.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "engine/base/io.h"
#include "integration/config/json.h"
#include "integration/config/text.h"
#include "integration/runtimes/oci_runtime.h"
#include "integration/runtimes/places.h"

namespace stasis::integration::runtimes {
namespace {

std::vector<std::string> storage_roots(const FindOptions& options) {
  if (!options.root.empty()) return {options.root};
  if (!options.host.empty() || ::geteuid() == 0) return {cat(options.host, "/var/lib/containers/storage")};
  if (const char* data = std::getenv("XDG_DATA_HOME"); data && *data == '/') return {cat(data, "/containers/storage")};
  const char* home = std::getenv("HOME");
  return {cat(home ? home : "", "/.local/share/containers/storage")};
}

// The directory is named after the storage driver: overlay-containers, vfs-containers.
Result<void> add_lists(const std::string& root, std::vector<StoredContainer>& out) {
  auto names = list_dir(AT_FDCWD, root);
  if (!names && is_absent(names.error())) return {};
  for (const std::string& name : TRY(std::move(names))) {
    if (!name.ends_with("-containers")) continue;
    for (const char* list : {"containers.json", "volatile-containers.json"}) {
      const std::string file = cat(root, "/", name, "/", list);
      auto text = config::read_text(file);
      if (!text && is_absent(text.error())) continue;
      for (StoredContainer& container : TRY(parse_storage(TRY(std::move(text)), file)))
        out.push_back(std::move(container));
    }
  }
  return {};
}

}  // namespace

bool StoredContainer::is(std::string_view wanted) const {
  constexpr size_t kShortId = 12;
  if (std::find(names.begin(), names.end(), wanted) != names.end()) return true;
  return wanted.size() >= kShortId && id.starts_with(wanted);
}

Result<std::vector<StoredContainer>> parse_storage(std::string_view json, const std::string& file) {
  const config::Node root = TRY(config::parse_json(json, file));
  std::vector<StoredContainer> out;
  for (const config::Cursor& item : TRY(config::Cursor(&root, file).list())) {
    StoredContainer container;
    container.id = TRY(TRY(item.get("id")).string());
    container.names = TRY(TRY(item.get("names")).strings());
    out.push_back(std::move(container));
  }
  return out;
}

Result<std::vector<StoredContainer>> stored_containers(const FindOptions& options) {
  std::vector<StoredContainer> out;
  for (const std::string& root : storage_roots(options)) TRY(add_lists(root, out));
  return out;
}

Result<std::optional<Container>> find_podman(const std::string& name, const FindOptions& options) {
  const auto known = TRY(stored_containers(options));
  std::vector<const StoredContainer*> matches;
  for (const StoredContainer& container : known)
    if (container.is(name)) matches.push_back(&container);
  if (matches.empty()) return std::optional<Container>();
  if (matches.size() > 1)
    return fail(Error(Code::kUsage, cat("the id ", json_quote(name), " is the beginning of several podman containers: ",
                                        matches[0]->id, ", ", matches[1]->id))
                    .about(name));
  FindOptions below = options;
  below.root.clear();  // that was podman's
  for (const OciRuntime& runtime : oci_runtimes()) {
    auto found = TRY(find_oci(runtime, matches[0]->id, below));
    if (!found) continue;
    found->runtime = "podman";
    if (!matches[0]->names.empty()) found->id = matches[0]->names[0];
    return found;
  }
  return fail(Error(Code::kNoContainer, cat("the podman container ", name,
                                            " is not running: neither runc nor crun has a "
                                            "record of ",
                                            matches[0]->id))
                  .about(matches[0]->id));
}

}  // namespace stasis::integration::runtimes
