// SPDX-License-Identifier: Apache-2.0
#include "engine/image/pump.h"

#include <utility>

namespace stasis::image {
namespace {

constexpr size_t kBlocks = 4;

}  // namespace

Pump::Pump(RawFile& file, bool parallel) : file_(file) {
  const size_t blocks = parallel ? kBlocks : 1;
  for (size_t i = 0; i < blocks; ++i) free_.push_back(std::make_unique_for_overwrite<uint8_t[]>(kBuffer));
  threaded_ = parallel && ::pthread_create(&thread_, nullptr, work, this) == 0;
}

Pump::~Pump() { stop(); }

std::span<uint8_t> Pump::space() {
  if (!current_) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !free_.empty(); });
    current_ = std::move(free_.back());
    free_.pop_back();
  }
  return {current_.get() + filled_, kBuffer - filled_};
}

Result<void> Pump::append(size_t size) {
  file_.sum_up(current_.get() + filled_, size);
  filled_ += size;
  return filled_ == kBuffer ? send() : Result<void>{};
}

Result<void> Pump::send() {
  const size_t size = std::exchange(filled_, 0);
  if (size == 0) return {};
  if (!threaded_) return file_.write_only(current_.get(), size);
  const std::lock_guard lock(mutex_);
  full_.push_back({std::move(current_), size});
  changed_.notify_all();
  return result_;
}

Result<void> Pump::finish() {
  const auto sent = send();
  stop();
  return sent ? result_ : sent;
}

void Pump::stop() {
  if (!std::exchange(threaded_, false)) return;
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  ::pthread_join(thread_, nullptr);
}

void* Pump::work(void* self) {
  auto& pump = *static_cast<Pump*>(self);
  std::unique_lock lock(pump.mutex_);
  while (true) {
    pump.changed_.wait(lock, [&] { return pump.ended_ || !pump.full_.empty(); });
    if (pump.full_.empty()) return nullptr;
    auto next = std::move(pump.full_.front());
    pump.full_.pop_front();
    if (pump.result_) {
      lock.unlock();
      auto written = pump.file_.write_only(next.block.get(), next.size);
      lock.lock();
      if (!written) pump.result_ = std::move(written);
    }
    pump.free_.push_back(std::move(next.block));
    pump.changed_.notify_all();
  }
}

}  // namespace stasis::image
