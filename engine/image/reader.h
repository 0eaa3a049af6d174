// SPDX-License-Identifier: Apache-2.0
// Reads an image directory, ours or CRIU's. Everything is checked before it is used:
// magic, lengths against the file, the protobuf, and for our own images the manifest.
#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/image/magic.h"
#include "proto/inventory.pb.h"
#include "proto/manifest.pb.h"

namespace stasis::image {

// Opens one image file: regular, not a symbolic link. kImageMissing if it is not there.
Result<Fd> open_image(int dirfd, const std::string& name);

// One file, record by record.
class RecordReader {
 public:
  // Checks the head against `kind`.
  static Result<RecordReader> open(int dirfd, const std::string& name, Kind kind);
  static Result<RecordReader> open(Fd file, const std::string& name, Kind kind);
  // Takes the kind from the file's magic; kImageCorrupt if it is none.
  static Result<RecordReader> open_any(int dirfd, const std::string& name);

  // The next record: true; the end of the file: false. The message is cleared first.
  Result<bool> next(google::protobuf::Message& message);
  // The next `size` bytes that follow the last record; at most kMaxRecord at a time.
  Result<std::string> payload(uint64_t size);
  Result<void> skip(uint64_t size);

  const KindInfo& kind() const { return *kind_; }
  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return size_ - offset_; }
  // kImageCorrupt about this file, at the current offset.
  Error corrupt(std::string what) const;

 private:
  Result<void> read_bytes(void* data, uint64_t size);
  static Result<RecordReader> open_any(Fd file, const std::string& name);
  Result<void> read_head();
  Fd fd_;
  std::string name_;
  uint64_t size_ = 0;
  uint64_t offset_ = 0;
  const KindInfo* kind_ = nullptr;
};

class Reader {
 public:
  // Requires inventory.img of a known version. With a manifest: the architecture is ours and
  // every listed file has its size and checksum.
  static Result<Reader> open(int dirfd);

  const pb::inventory_entry& inventory() const { return inventory_; }
  // Null for images written by CRIU.
  const pb::manifest_entry* manifest() const { return manifest_ ? &*manifest_ : nullptr; }

  // A file of exactly one record.
  template <class T>
  Result<T> read(Kind kind, const std::string& name) const {
    T message;
    TRY(read_one(kind, name, message));
    return message;
  }
  template <class T>
  Result<std::vector<T>> read_all(Kind kind, const std::string& name) const {
    RecordReader file = TRY(records(kind, name));
    std::vector<T> out;
    while (TRY(file.next(out.emplace_back()))) {
    }
    out.pop_back();
    return out;
  }
  // There, and (with a manifest) part of this checkpoint.
  bool exists(const std::string& name) const;
  Result<RecordReader> records(Kind kind, const std::string& name) const;
  // Files without a magic. O_RDONLY.
  Result<Fd> open_raw(const std::string& name) const;
  // From now on opening one of these gives copies of one descriptor: for a task that has no right to open them itself.
  Result<void> hold_open(const std::vector<std::string>& names);
  int dirfd() const { return dir_.get(); }

 private:
  Result<void> read_one(Kind kind, const std::string& name, google::protobuf::Message& message) const;
  Result<void> check_listed(const std::string& name) const;
  Fd dir_;
  pb::inventory_entry inventory_;
  std::optional<pb::manifest_entry> manifest_;
  std::set<std::string> listed_;  // names in the manifest
  std::map<std::string, Fd> held_;
};

}  // namespace stasis::image
