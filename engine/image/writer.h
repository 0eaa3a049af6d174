// SPDX-License-Identifier: Apache-2.0
// Writes an image directory whole or not at all: files grow in a hidden staging
// directory and are renamed into place by commit(), inventory.img last. Not for use
// by several threads at once. See proto/manifest.proto for the manifest.
#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <memory>
#include <string>

#include "engine/base/result.h"
#include "engine/image/magic.h"
#include "proto/manifest.pb.h"

namespace stasis::image {

namespace detail {
struct WriterState;
struct OpenImage;
}  // namespace detail

// A file of records, being written. It must be closed; its Writer must outlive it.
class RecordFile {
 public:
  RecordFile(RecordFile&&) noexcept;
  RecordFile& operator=(RecordFile&&) noexcept;
  ~RecordFile();

  Result<void> append(const google::protobuf::Message& message);
  // Bytes that follow the last record (contents of a pipe, of a deleted file).
  Result<void> append_payload(const void* data, size_t size);
  Result<void> close();

 private:
  friend class Writer;
  explicit RecordFile(std::unique_ptr<detail::OpenImage> file, Kind kind);
  std::unique_ptr<detail::OpenImage> file_;
  Kind kind_;
  std::string buffer_;
};

// A file without a magic: pages, archives. It must be closed; its Writer must outlive it.
class RawFile {
 public:
  RawFile(RawFile&&) noexcept;
  RawFile& operator=(RawFile&&) noexcept;
  ~RawFile();

  Result<void> append(const void* data, size_t size);
  // For data others write (a task's pwritev, a child's stdout). Read-write, O_CLOEXEC.
  int fd() const;
  // After that: reads the file back for its size and checksum. Then close().
  Result<void> finish_external();
  uint64_t size() const;
  Result<void> close();

 private:
  friend class Writer;
  friend class Pump;
  // The two halves of append().
  void sum_up(const void* data, size_t size);
  Result<void> write_only(const void* data, size_t size) const;
  explicit RawFile(std::unique_ptr<detail::OpenImage> file);
  std::unique_ptr<detail::OpenImage> file_;
};

class Writer {
 public:
  // kImageDir: not a directory, not writable, in use by another Writer, or (unless `replace`)
  // already holding *.img files. Removes what a killed engine left behind.
  static Result<Writer> create(int images_dirfd, bool replace);
  Writer(Writer&&) noexcept;
  Writer& operator=(Writer&&) noexcept;
  // Without commit(): the staging directory goes, the image directory is as before.
  ~Writer();

  // A file of one record.
  Result<void> put(Kind kind, const std::string& name, const google::protobuf::Message& message);
  template <class Range>
  Result<void> put_all(Kind kind, const std::string& name, const Range& messages) {
    RecordFile file = TRY(open(kind, name));
    for (const auto& message : messages) TRY(file.append(message));
    return file.close();
  }
  Result<RecordFile> open(Kind kind, const std::string& name);
  Result<RawFile> open_raw(const std::string& name);
  // Goes into the manifest at commit.
  void add_task_extra(const pb::task_extra& extra);
  void add_socket_extra(const pb::socket_extra& extra);
  void add_inherited_pages(const pb::inherited_pages& pages);
  void add_device_filter(const pb::device_filter& filter);
  void add_shmem_extra(const pb::shmem_extra& extra);
  void add_unix_extra(const pb::unix_extra& extra);
  void add_packet_extra(const pb::packet_extra& extra);
  void add_memory_extra(const pb::memory_extra& extra);
  void add_pipe_extra(const pb::pipe_extra& extra);
  void add_file_extra(const pb::file_extra& extra);
  void set_network_lock(const std::string& table);
  void add_event_extra(const pb::event_extra& extra);
  void add_tty_extra(const pb::tty_extra& extra);
  void add_fanotify_extra(const pb::fanotify_extra& extra);
  void add_net_sysctl(const pb::net_sysctl& setting);
  void set_user_namespace(bool setgroups, uint32_t owner);

  // Makes the checkpoint: manifest, fsync, (only then) the previous one away, rename, inventory last. kInternal if a
  // file is still open or inventory.img was not written. `sync` off leaves out every fsync.
  Result<void> commit(bool sync = true);

 private:
  explicit Writer(std::unique_ptr<detail::WriterState> state);
  std::unique_ptr<detail::WriterState> state_;
};

}  // namespace stasis::image
