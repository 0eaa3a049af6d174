// SPDX-License-Identifier: Apache-2.0
// A temporary directory per test; working directory, log and signal state are put back afterwards.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "engine/base/fd.h"
#include "engine/base/log.h"

namespace stasis::cli {

class DoorsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/stasis-doors-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    dir_ = name;
    here_ = Fd(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(here_);
  }

  void TearDown() override {
    log::open(-1, log::Level::kWarning);
    EXPECT_EQ(fchdir(here_.get()), 0);
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
  }

  std::string path(const std::string& name) const { return dir_ + "/" + name; }

  std::string make_dir(const std::string& name) const {
    EXPECT_EQ(mkdir(path(name).c_str(), 0755), 0);
    return path(name);
  }

  std::string write(const std::string& name, const std::string& text, mode_t mode = 0644) const {
    std::ofstream(path(name)) << text;
    EXPECT_EQ(chmod(path(name).c_str(), mode), 0);
    return path(name);
  }

  std::string read(const std::string& name) const {
    std::ifstream in(path(name));
    std::stringstream out;
    out << in.rdbuf();
    return out.str();
  }

  bool exists(const std::string& name) const { return access(path(name).c_str(), F_OK) == 0; }

  Fd open_dir(const std::string& directory) const {
    return Fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }

  std::string dir_;
  Fd here_;
};

}  // namespace stasis::cli
