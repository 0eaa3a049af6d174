// SPDX-License-Identifier: Apache-2.0
// A temporary directory of an image test, and helpers to look into it and to damage it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::image {

#define ASSERT_OK(expr)                                               \
  do {                                                                \
    const auto& assert_ok_result = (expr);                            \
    ASSERT_TRUE(assert_ok_result) << assert_ok_result.error().line(); \
  } while (false)

class TempDir {
 public:
  TempDir() {
    std::string pattern = std::filesystem::temp_directory_path() / "stasis-image-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    fd_ = Fd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }

  // Sorted, hidden entries included.
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) out.push_back(entry.path().filename());
    std::ranges::sort(out);
    return out;
  }
  std::string content(const std::string& name) const {
    std::ifstream in(path_ + "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream out(path_ + "/" + name, std::ios::binary | std::ios::trunc);
    out << bytes;
  }

 private:
  std::string path_;
  Fd fd_;
};

// Runs on every path: what `error` is about must be named in its one-line form.
template <class T>
::testing::AssertionResult fails_with(const Result<T>& result, Code code, std::string_view text) {
  if (result) return ::testing::AssertionFailure() << "succeeded";
  const std::string line = result.error().line();
  if (result.error().code() != code || line.find(text) == std::string::npos)
    return ::testing::AssertionFailure() << "is: " << line;
  return ::testing::AssertionSuccess();
}

}  // namespace stasis::image
