// SPDX-License-Identifier: Apache-2.0
// Appends to a raw file in a thread of its own: what comes next is read while what came last is written, and contents
// go to the disk at the pace of the slower of the two.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/image/writer.h"

namespace stasis::image {

class Pump {
 public:
  static constexpr size_t kBuffer = 1u << 20;  // fits the second-level cache together with the target
  // `parallel` off: no thread, as for what is too small to be worth one.
  Pump(RawFile& file, bool parallel);
  Pump(const Pump&) = delete;
  Pump& operator=(const Pump&) = delete;
  ~Pump();

  // Where to put what comes next: never empty.
  std::span<uint8_t> space();
  // Appends the first `size` bytes of space(). An error of earlier ones may be told by a later call.
  Result<void> append(size_t size);
  // Everything is in the file.
  Result<void> finish();

 private:
  using Block = std::unique_ptr<uint8_t[]>;
  struct Full {
    Block block;
    size_t size;
  };
  static void* work(void* self);
  Result<void> send();
  void stop();

  RawFile& file_;
  bool threaded_ = false;
  pthread_t thread_{};
  std::mutex mutex_;
  std::condition_variable changed_;
  Block current_;
  size_t filled_ = 0;        // bytes of it
  std::vector<Block> free_;  // shared with the thread from here on
  std::deque<Full> full_;
  bool ended_ = false;
  Result<void> result_;
};

}  // namespace stasis::image
