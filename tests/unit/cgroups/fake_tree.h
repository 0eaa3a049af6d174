// SPDX-License-Identifier: Apache-2.0
// A directory tree in a temporary directory that looks like mounted cgroup hierarchies.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "cgroups/hierarchy.h"

namespace stasis::cgroups {

class FakeTree {
 public:
  FakeTree() {
    char pattern[] = "/tmp/stasis-cgroups-XXXXXX";
    root_ = ::mkdtemp(pattern);
  }
  ~FakeTree() { std::filesystem::remove_all(root_); }
  FakeTree(const FakeTree&) = delete;
  FakeTree& operator=(const FakeTree&) = delete;

  const std::string& root() const { return root_; }
  std::string path(const std::string& name) const { return root_ + "/" + name; }
  void dir(const std::string& name) { std::filesystem::create_directories(path(name)); }
  void file(const std::string& name, const std::string& text) {
    dir(std::filesystem::path(name).parent_path());
    std::ofstream(path(name)) << text;
  }
  std::string text(const std::string& name) const {
    std::ifstream in(path(name));
    return {std::istreambuf_iterator<char>(in), {}};
  }
  bool exists(const std::string& name) const { return std::filesystem::exists(path(name)); }
  // A cgroup that tasks can be moved into.
  void group(const std::string& name) {
    file(name + "/cgroup.procs", "");
    file(name + "/tasks", "");
  }

 private:
  std::string root_;
};

inline Hierarchy v1(std::vector<std::string> controllers, std::string mount_point = {}) {
  Hierarchy out{.controllers = std::move(controllers), .mount_point = std::move(mount_point)};
  if (out.mount_point.empty()) out.mount_point = out.name();
  return out;
}

inline Hierarchy v2(std::vector<std::string> controllers = {}, std::string mount_point = "unified") {
  return {.unified = true, .mount_point = std::move(mount_point), .unified_controllers = std::move(controllers)};
}

// The value of a Result, or a failed test and a default.
template <class T>
T must(Result<T> result) {
  if (result) return *std::move(result);
  ADD_FAILURE() << result.error().line();
  return T();
}

}  // namespace stasis::cgroups
