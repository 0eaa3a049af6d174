// SPDX-License-Identifier: Apache-2.0
// A directory of ours below /run for as long as a container is being made, and a second container beside that one.
#pragma once

#include <string>

#include "engine/base/result.h"
#include "integration/config/node.h"
#include "integration/into/runtime.h"

namespace stasis::integration::into {

// Of the names that tests and administrators look for; emptied and removed together with its directory "filter".
Result<std::string> make_staging_directory();
void remove_staging_directory(const std::string& path);  // empty: nothing to do

// A scope: what it made goes with it. A copy of it in a janitor removes the same.
class Stage {
 public:
  // `state_dir`: the record of the container; it need not exist yet.
  static Result<Stage> make(const Runtime& runtime, const std::string& state_dir);
  Stage(Stage&& other) noexcept;
  Stage& operator=(Stage&& other) noexcept;
  ~Stage() { remove(); }

  const std::string& path() const { return path_; }  // empty: removed
  std::string log() const { return path_ + "/log"; }
  // As config.json: the directory is a bundle.
  Result<void> write_description(const config::Node& config) const;
  // Gives the record the filter of `config`, as the runtime translates it: of another container, made and deleted.
  Result<void> copy_filter(const config::Node& config, const config::Node& waiting) const;
  void remove();

 private:
  Stage() = default;
  std::string filter_id() const { return path_.substr(path_.rfind('/') + 1); }
  std::string filter_bundle() const { return path_ + "/filter"; }
  std::string filter_state() const { return cat(runtime_root_, "/", filter_id()); }
  Result<void> remove_filter() const;

  const Runtime* runtime_ = nullptr;
  std::string state_dir_, runtime_root_, path_;
};

}  // namespace stasis::integration::into
