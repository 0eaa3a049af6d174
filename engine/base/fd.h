// SPDX-License-Identifier: Apache-2.0
// One owner of one file descriptor. Closing never retries: on Linux the number
// is free again even when close(2) reports EINTR, and may already be somebody else's.
#pragma once

#include <utility>

namespace stasis {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    other.reset();
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  explicit operator bool() const { return valid(); }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  // Closes what is owned; keeps errno; aborts on EBADF (a double close).
  void reset();

 private:
  int fd_ = -1;
};

}  // namespace stasis
