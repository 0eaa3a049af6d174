// SPDX-License-Identifier: Apache-2.0
// How each mount of a container would be rebuilt; shared by check(), dump() and content_jobs().
#pragma once

#include <map>
#include <string>
#include <vector>

#include "mounts/dump.h"
#include "mounts/fstypes.h"

namespace stasis::mounts {

struct Treatment {
  enum class How {
    kRoot,      // the new root directory
    kRootBind,  // a bind of something below the root directory
    kStaged,    // a file system of the container's own, mounted anew and bound
    kExternal,  // the user named it
    kAuto,      // found in the engine's own table
    kSkip,      // --skip-mnt
  };
  How how = How::kStaged;
  const FsType* type = nullptr;  // nullptr: not known
  std::string key;               // kExternal: the name for the image
  std::string host_path;         // kAuto
  std::string root;              // what the image says as root of the mount
  bool host_peer = false;        // shares its peer group with the engine's namespace
};

class Classifier {
 public:
  Classifier(const Table& table, const Options& options, const Table& engine, uint32_t own_namespaces);

  // One treatment per mount of the table, by index; obstacles are added to `errors`.
  std::vector<Treatment> run(std::vector<Error>* errors) const;

 private:
  Result<Treatment> one(const Mount& mount) const;
  Result<Treatment> by_type(const Mount& mount, Treatment t) const;
  Result<Treatment> cgroup(const Mount& mount, Treatment t) const;
  Result<Treatment> foreign(const Mount& mount, Treatment t, std::string_view why) const;
  const Mount* best_match(const Mount& mount) const;
  const std::string* external_key(const Mount& mount) const;
  const std::string* named(const Mount& mount) const;
  bool rebuildable(const Mount& mount) const;
  bool beyond_user(const FsType& type) const;
  bool is_host_instance(const Mount& mount, const FsType& type) const;
  bool whole_is_mounted(const Mount& mount) const;
  Result<void> check_groups_of(const Mount& mount, const Treatment& t) const;

  const Table& table_;
  const Options& options_;
  const Table& engine_;
  uint32_t own_;
};

}  // namespace stasis::mounts
