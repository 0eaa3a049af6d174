// SPDX-License-Identifier: Apache-2.0
// An array of system calls for a stopped task, with the data they point to. Built
// here, copied into the task's arena, run in one go: one ptrace stop per batch.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "engine/kernel/x86_64/runner.h"

namespace stasis::remote {

class Batch {
 public:
  // An argument: a number, the address of data in this batch, or the result of an earlier call.
  struct Arg {
    enum class Kind : uint8_t { kNumber, kData, kResultOf } kind = Kind::kNumber;
    uint64_t value = 0;
    Arg() = default;
    template <class T>
    requires std::is_integral_v<T> || std::is_enum_v<T> Arg(T number)
        : value(static_cast<uint64_t>(static_cast<int64_t>(number))) {}  // NOLINT: implicit on purpose
    Arg(Kind k, uint64_t v) : kind(k), value(v) {}
  };

  // Adds a call and returns its index.
  template <class... Args>
  size_t add(long nr, Args... args) {
    static_assert(sizeof...(args) <= 6);
    calls_.push_back(Entry{static_cast<uint64_t>(nr), {Arg(args)...}, {}});
    return calls_.size() - 1;
  }
  // Names the last call for error messages; a named call must not fail (see Runner::run_checked).
  Batch& must(std::string what) {
    calls_.back().what = std::move(what);
    return *this;
  }

  // Space of `size` bytes in the task, zeroed or filled; 16-byte aligned.
  Arg data(const void* bytes, size_t size) {
    const size_t offset = (data_.size() + 15) & ~size_t{15};
    data_.resize(offset + size);
    if (bytes && size) std::memcpy(data_.data() + offset, bytes, size);
    return Arg(Arg::Kind::kData, offset);
  }
  template <class T>
  Arg put(const T& value) {
    return data(&value, sizeof(T));
  }
  Arg space(size_t size) { return data(nullptr, size); }
  Arg text(const std::string& s) { return data(s.c_str(), s.size() + 1); }
  // Makes a later argument the result of call `index`, known only when it has run.
  Arg result_of(size_t index) { return Arg(Arg::Kind::kResultOf, index); }
  // Stores, inside data `at` + offset, the address that data `of` will have in the task.
  void point(Arg at, size_t offset, Arg of) { pointers_.push_back({at.value + offset, of.value}); }

  // The calls are those of ia32, with its numbers, and everything they point to has its layout. On restore only, and
  // only if the arena lies below 4 GiB.
  void make_ia32() { ia32_ = true; }

  size_t size() const { return calls_.size(); }
  bool empty() const { return calls_.empty(); }

  // After run(): results and data as the task left them.
  int64_t result(size_t index) const { return results_[index]; }
  bool failed(size_t index) const { return results_[index] < 0 && results_[index] >= -4095; }
  const uint8_t* bytes(Arg at) const { return data_.data() + at.value; }
  template <class T>
  T get(Arg at) const {
    T value;
    std::memcpy(&value, data_.data() + at.value, sizeof(T));
    return value;
  }

 private:
  friend class Runner;
  struct Entry {
    uint64_t nr;
    Arg args[6];
    std::string what;
  };
  struct Pointer {
    uint64_t at, of;
  };
  std::vector<Entry> calls_;
  std::vector<uint8_t> data_;
  std::vector<Pointer> pointers_;
  std::vector<int64_t> results_;
  bool ia32_ = false;
};

}  // namespace stasis::remote
