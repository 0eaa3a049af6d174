// SPDX-License-Identifier: Apache-2.0
#include "integration/into/stage.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "engine/base/io.h"
#include "integration/config/write_json.h"
#include "integration/into/scaffold.h"

namespace stasis::integration::into {
namespace {

Result<void> write_to(const std::string& bundle, const config::Node& config) {
  const std::string text = config::write_json(config);
  const Fd file = TRY(open_at(AT_FDCWD, bundle + "/config.json", O_WRONLY | O_CREAT | O_EXCL, 0600));
  return write_full(file.get(), text.data(), text.size(), "config.json");
}

}  // namespace

Result<std::string> make_staging_directory() {
  char place[] = "/run/stasis-into.XXXXXX";
  if (!::mkdtemp(place)) return fail_sys("make a directory", place);
  return std::string(place);
}

void remove_staging_directory(const std::string& path) {
  if (path.empty()) return;
  for (const std::string& dir : {path + "/filter", path}) {
    if (auto names = list_dir(AT_FDCWD, dir))
      for (const std::string& name : *names) ::unlink(cat(dir, "/", name).c_str());
    ::rmdir(dir.c_str());
  }
}

Result<Stage> Stage::make(const Runtime& runtime, const std::string& state_dir) {
  Stage out;
  out.runtime_ = &runtime;
  out.state_dir_ = state_dir;
  out.runtime_root_ = state_dir.substr(0, state_dir.rfind('/'));
  out.path_ = TRY(make_staging_directory());
  return out;
}

Stage::Stage(Stage&& other) noexcept
    : runtime_(other.runtime_),
      state_dir_(std::move(other.state_dir_)),
      runtime_root_(std::move(other.runtime_root_)),
      path_(std::exchange(other.path_, {})) {}

Stage& Stage::operator=(Stage&& other) noexcept {
  if (this == &other) return *this;
  remove();
  runtime_ = other.runtime_;
  state_dir_ = std::move(other.state_dir_);
  runtime_root_ = std::move(other.runtime_root_);
  path_ = std::exchange(other.path_, {});
  return *this;
}

Result<void> Stage::write_description(const config::Node& config) const { return write_to(path_, config); }

Result<void> Stage::remove_filter() const {
  return call(*runtime_, runtime_root_, log(), {"delete", "--force", filter_id()});
}

Result<void> Stage::copy_filter(const config::Node& config, const config::Node& waiting) const {
  if (::mkdir(filter_bundle().c_str(), 0700) != 0) return fail_sys("mkdir", filter_bundle());
  TRY(write_to(filter_bundle(), filter_config(config, waiting, cat("/", filter_id()))));
  TRY(call(*runtime_, runtime_root_, log(), {"create", "--bundle", filter_bundle(), filter_id()}));
  TRY(runtime_->copy_seccomp(filter_state(), state_dir_));
  return remove_filter();
}

void Stage::remove() {
  if (path_.empty()) return;
  if (::access(filter_state().c_str(), F_OK) == 0) (void)remove_filter();
  remove_staging_directory(path_);
  path_.clear();
}

}  // namespace stasis::integration::into
