// SPDX-License-Identifier: Apache-2.0
#include "engine/image/writer.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <map>
#include <mutex>
#include <vector>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/image/crc32c.h"
#include "engine/image/manifest.h"

namespace stasis::image {

namespace detail {

struct WriterState {
  Fd dir;  // our own open file description: it carries the lock
  Fd staging;
  std::string staging_name;
  bool replace = false;
  std::map<std::string, FileSum> files;  // closed ones
  size_t open_files = 0;
  google::protobuf::RepeatedPtrField<pb::task_extra> extras;
  google::protobuf::RepeatedPtrField<pb::socket_extra> socket_extras;
  google::protobuf::RepeatedPtrField<pb::net_sysctl> net_sysctls;
  std::string network_lock;
  google::protobuf::RepeatedPtrField<pb::inherited_pages> inherited_pages;
  google::protobuf::RepeatedPtrField<pb::device_filter> device_filters;
  google::protobuf::RepeatedPtrField<pb::shmem_extra> shmem_extras;
  google::protobuf::RepeatedPtrField<pb::unix_extra> unix_extras;
  google::protobuf::RepeatedPtrField<pb::packet_extra> packet_extras;
  bool setgroups_denied = false;
  google::protobuf::RepeatedPtrField<pb::memory_extra> memory_extras;
  google::protobuf::RepeatedPtrField<pb::pipe_extra> pipe_extras;
  google::protobuf::RepeatedPtrField<pb::file_extra> file_extras;
  google::protobuf::RepeatedPtrField<pb::event_extra> event_extras;
  google::protobuf::RepeatedPtrField<pb::tty_extra> tty_extras;
  google::protobuf::RepeatedPtrField<pb::fanotify_extra> fanotify_extras;
  uint32_t user_ns_owner = 0;
};

struct OpenImage {
  OpenImage(WriterState* writer, Fd fd, std::string name) : writer(writer), fd(std::move(fd)), name(std::move(name)) {
    ++writer->open_files;
  }

  Result<void> write(const void* data, size_t size) {
    if (!fd) return fail(Code::kInternal, cat(name, ": written after close"));
    TRY(write_full(fd.get(), data, size, name));
    sum_up(data, size);
    return {};
  }

  void sum_up(const void* data, size_t size) {
    sum.crc32c = crc32c(sum.crc32c, data, size);
    sum.size += size;
  }

  Result<void> close() {
    if (!fd) return fail(Code::kInternal, cat(name, ": closed twice"));
    fd.reset();
    writer->files[name] = sum;
    --writer->open_files;
    return {};
  }

  WriterState* writer;
  Fd fd;
  std::string name;
  FileSum sum;
};

}  // namespace detail

namespace {

using detail::OpenImage;
using detail::WriterState;

constexpr std::string_view kStagingPrefix = ".stasis-";
constexpr size_t kBuffer = 64u << 10;
constexpr mode_t kFileMode = 0600;  // memory of other users' processes is in there

bool is_image_name(std::string_view name) { return name.ends_with(".img"); }

// Staging directories are flat; whatever else was put there stays, and is named.
void remove_staging(int dirfd, const std::string& name) {
  auto entries = list_dir(dirfd, name);
  if (entries)
    for (const auto& entry : *entries) ::unlinkat(dirfd, cat(name, "/", entry).c_str(), 0);
  if (::unlinkat(dirfd, name.c_str(), AT_REMOVEDIR) < 0)
    log::warning(Error::sys("rmdir", name).message(), ", ignoring");
}

Error not_usable(std::string_view what) { return Error(Code::kImageDir, cat("the image directory ", what)); }

// One writer at a time: also what makes removing leftovers safe.
Result<Fd> open_and_lock(int images_dirfd) {
  struct stat st {};
  if (::fstat(images_dirfd, &st) < 0) return fail_sys(Code::kImageDir, "fstat", "image directory");
  if (!S_ISDIR(st.st_mode)) return fail(not_usable("is not a directory"));
  auto dir = open_at(images_dirfd, ".", O_RDONLY | O_DIRECTORY);
  if (!dir) return fail(std::move(dir).error().with_code(Code::kImageDir).context("image directory"));
  if (::flock(dir->get(), LOCK_EX | LOCK_NB) < 0) {
    if (errno == EWOULDBLOCK) return fail(not_usable("is being written by another engine"));
    log::debug("image directory: ", Error::sys("flock").message());  // a file system without locks
  }
  return dir;
}

Result<void> check_content(int dirfd, bool replace) {
  for (const auto& name : TRY(list_dir(dirfd, "."))) {
    if (name.starts_with(kStagingPrefix)) {
      log::debug("removing ", name, ", left by a killed engine");
      remove_staging(dirfd, name);
    } else if (!replace && is_image_name(name)) {
      return fail(not_usable(cat("is not empty: it holds ", name)).about(name));
    }
  }
  return {};
}

Result<std::string> make_staging(int dirfd) {
  while (true) {
    uint32_t random = 0;
    if (::getrandom(&random, sizeof(random), 0) != sizeof(random)) return fail_sys("getrandom");
    std::string name = cat(kStagingPrefix, hex(random | 0x80000000u).substr(2));
    if (::mkdirat(dirfd, name.c_str(), 0700) == 0) return name;
    if (errno == EEXIST) continue;
    if (errno == ENOSPC || errno == EDQUOT) return fail_sys("mkdir in the image directory");
    return fail_sys(Code::kImageDir, "the image directory is not writable: mkdir");
  }
}

// Many files at once: each fsync waits for the disk to flush its cache, and flushes asked for together are one.
class Syncer {
 public:
  Syncer(int dirfd, std::vector<std::string> names) : dirfd_(dirfd), names_(std::move(names)) {}

  Result<void> run() {
    constexpr size_t kThreads = 32;
    std::vector<pthread_t> threads;
    for (size_t i = 1; i < std::min(kThreads, names_.size()); ++i) {
      pthread_t thread;
      if (::pthread_create(&thread, nullptr, work, this) != 0) break;  // we alone can do it too
      threads.push_back(thread);
    }
    work(this);
    for (pthread_t thread : threads) ::pthread_join(thread, nullptr);
    return std::move(result_);
  }

 private:
  static void* work(void* self) {
    auto& syncer = *static_cast<Syncer*>(self);
    for (size_t at; (at = syncer.next_++) < syncer.names_.size();)
      if (auto synced = syncer.sync(syncer.names_[at]); !synced) {
        const std::lock_guard lock(syncer.mutex_);
        if (syncer.result_) syncer.result_ = std::move(synced);
      }
    return nullptr;
  }

  Result<void> sync(const std::string& name) const {
    const Fd fd = TRY(open_at(dirfd_, name, O_RDONLY | O_NOFOLLOW));
    if (::fsync(fd.get()) < 0) return fail_sys("fsync", name);
    return {};
  }

  int dirfd_;
  std::vector<std::string> names_;
  std::atomic<size_t> next_ = 0;
  std::mutex mutex_;
  Result<void> result_;
};

// The inventory and manifest go first, so that a directory in between is no checkpoint.
Result<void> remove_previous(int dirfd) {
  std::vector<std::string> names = {std::string(kInventoryName), std::string(kManifestName)};
  for (auto& name : TRY(list_dir(dirfd, ".")))
    if (is_image_name(name) && name != kInventoryName && name != kManifestName) names.push_back(std::move(name));
  for (const auto& name : names)
    if (::unlinkat(dirfd, name.c_str(), 0) < 0 && errno != ENOENT && errno != EISDIR) return fail_sys("remove", name);
  return {};
}

Result<void> move_in(const WriterState& state, const std::string& name, std::vector<std::string>& moved) {
  const unsigned flags = state.replace ? 0 : RENAME_NOREPLACE;
  int rc = ::renameat2(state.staging.get(), name.c_str(), state.dir.get(), name.c_str(), flags);
  if (rc < 0 && flags && (errno == EINVAL || errno == ENOSYS))  // NFS and friends have no NOREPLACE
    rc = ::renameat(state.staging.get(), name.c_str(), state.dir.get(), name.c_str());
  if (rc < 0 && errno == EEXIST) return fail(not_usable(cat("has meanwhile got a file ", name)).about(name));
  if (rc < 0) return fail_sys("rename into the image directory", name);
  moved.push_back(name);
  return {};
}

Result<void> move_all(const WriterState& state, bool sync, std::vector<std::string>& moved) {
  const std::string inventory(kInventoryName), manifest(kManifestName);
  for (const auto& [name, sum] : state.files)
    if (name != inventory && name != manifest) TRY(move_in(state, name, moved));
  TRY(move_in(state, manifest, moved));
  if (sync && ::fsync(state.dir.get()) < 0) return fail_sys("fsync", "image directory");
  TRY(move_in(state, inventory, moved));
  if (sync && ::fsync(state.dir.get()) < 0) return fail_sys("fsync", "image directory");
  return {};
}

}  // namespace

RecordFile::RecordFile(std::unique_ptr<OpenImage> file, Kind kind) : file_(std::move(file)), kind_(kind) {
  buffer_ = head_bytes(kind_info(kind));
}
RecordFile::RecordFile(RecordFile&&) noexcept = default;
RecordFile& RecordFile::operator=(RecordFile&&) noexcept = default;
RecordFile::~RecordFile() = default;

Result<void> RecordFile::append(const google::protobuf::Message& message) {
  if (!message.IsInitialized())
    return fail(Code::kInternal,
                cat(file_->name, ": ", message.GetTypeName(), " lacks ", message.InitializationErrorString()));
  const size_t size = message.ByteSizeLong();
  if (size > kMaxRecord) return fail(Code::kInternal, cat(file_->name, ": a record of ", size, " bytes"));
  for (int shift = 0; shift < 32; shift += 8) buffer_ += static_cast<char>(size >> shift & 0xff);
  if (!message.AppendToString(&buffer_)) return fail(Code::kInternal, cat(file_->name, ": record not serialised"));
  return buffer_.size() >= kBuffer ? append_payload(nullptr, 0) : Result<void>{};
}

Result<void> RecordFile::append_payload(const void* data, size_t size) {
  TRY(file_->write(buffer_.data(), buffer_.size()));
  buffer_.clear();
  return size > 0 ? file_->write(data, size) : Result<void>{};
}

Result<void> RecordFile::close() {
  TRY(append_payload(nullptr, 0));
  return file_->close();
}

RawFile::RawFile(std::unique_ptr<OpenImage> file) : file_(std::move(file)) {}
RawFile::RawFile(RawFile&&) noexcept = default;
RawFile& RawFile::operator=(RawFile&&) noexcept = default;
RawFile::~RawFile() = default;

Result<void> RawFile::append(const void* data, size_t size) { return file_->write(data, size); }
void RawFile::sum_up(const void* data, size_t size) { file_->sum_up(data, size); }
Result<void> RawFile::write_only(const void* data, size_t size) const {
  return write_full(file_->fd.get(), data, size, file_->name);
}
int RawFile::fd() const { return file_->fd.get(); }
uint64_t RawFile::size() const { return file_->sum.size; }
Result<void> RawFile::close() { return file_->close(); }

Result<void> RawFile::finish_external() {
  file_->sum = TRY(sum_file(file_->fd.get(), file_->name));
  return {};
}

Writer::Writer(std::unique_ptr<WriterState> state) : state_(std::move(state)) {}
Writer::Writer(Writer&&) noexcept = default;

Writer& Writer::operator=(Writer&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

Writer::~Writer() {
  if (!state_) return;
  if (state_->staging) remove_staging(state_->dir.get(), state_->staging_name);
  // Explicitly: a child that was cloned meanwhile may still hold the description.
  ::flock(state_->dir.get(), LOCK_UN);
}

Result<Writer> Writer::create(int images_dirfd, bool replace) {
  auto state = std::make_unique<WriterState>();
  state->replace = replace;
  state->dir = TRY(open_and_lock(images_dirfd));
  TRY(check_content(state->dir.get(), replace));
  state->staging_name = TRY(make_staging(state->dir.get()));
  auto staging = open_at(state->dir.get(), state->staging_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!staging) {
    remove_staging(state->dir.get(), state->staging_name);
    return fail(std::move(staging).error());
  }
  state->staging = *std::move(staging);
  return Writer(std::move(state));
}

Result<RecordFile> Writer::open(Kind kind, const std::string& name) {
  RawFile raw = TRY(open_raw(name));
  return RecordFile(std::move(raw.file_), kind);
}

Result<RawFile> Writer::open_raw(const std::string& name) {
  if (!valid_file_name(name)) return fail(Code::kInternal, cat(json_quote(name), " is not an image file name"));
  Fd fd = TRY(open_at(state_->staging.get(), name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, kFileMode));
  return RawFile(std::make_unique<OpenImage>(state_.get(), std::move(fd), name));
}

Result<void> Writer::put(Kind kind, const std::string& name, const google::protobuf::Message& message) {
  RecordFile file = TRY(open(kind, name));
  TRY(file.append(message));
  return file.close();
}

void Writer::add_task_extra(const pb::task_extra& extra) { *state_->extras.Add() = extra; }
void Writer::add_inherited_pages(const pb::inherited_pages& pages) { *state_->inherited_pages.Add() = pages; }
void Writer::add_socket_extra(const pb::socket_extra& extra) { *state_->socket_extras.Add() = extra; }
void Writer::add_device_filter(const pb::device_filter& filter) { *state_->device_filters.Add() = filter; }
void Writer::add_shmem_extra(const pb::shmem_extra& extra) { *state_->shmem_extras.Add() = extra; }
void Writer::add_unix_extra(const pb::unix_extra& extra) { *state_->unix_extras.Add() = extra; }
void Writer::add_packet_extra(const pb::packet_extra& extra) { *state_->packet_extras.Add() = extra; }
void Writer::add_memory_extra(const pb::memory_extra& extra) { *state_->memory_extras.Add() = extra; }
void Writer::add_pipe_extra(const pb::pipe_extra& extra) { *state_->pipe_extras.Add() = extra; }
void Writer::add_file_extra(const pb::file_extra& extra) { *state_->file_extras.Add() = extra; }
void Writer::set_network_lock(const std::string& table) { state_->network_lock = table; }
void Writer::add_tty_extra(const pb::tty_extra& extra) { *state_->tty_extras.Add() = extra; }
void Writer::add_fanotify_extra(const pb::fanotify_extra& extra) { *state_->fanotify_extras.Add() = extra; }
void Writer::add_net_sysctl(const pb::net_sysctl& setting) { *state_->net_sysctls.Add() = setting; }
void Writer::add_event_extra(const pb::event_extra& extra) { *state_->event_extras.Add() = extra; }
void Writer::set_user_namespace(bool setgroups, uint32_t owner) {
  state_->setgroups_denied = !setgroups;
  state_->user_ns_owner = owner;
}

Result<void> Writer::commit(bool sync) {
  WriterState& state = *state_;
  if (state.open_files > 0) return fail(Code::kInternal, cat(state.open_files, " image files are not closed"));
  if (!state.files.contains(std::string(kInventoryName))) return fail(Code::kInternal, "no inventory.img was written");
  if (!state.staging) return fail(Code::kInternal, "images committed twice");

  pb::manifest_entry manifest = describe_host();
  for (const auto& [name, sum] : state.files) {
    auto* file = manifest.add_files();
    file->set_name(name);
    file->set_size(sum.size);
    file->set_crc32c(sum.crc32c);
  }
  *manifest.mutable_task_extras() = state.extras;
  *manifest.mutable_socket_extras() = state.socket_extras;
  *manifest.mutable_inherited_pages() = state.inherited_pages;
  *manifest.mutable_device_filters() = state.device_filters;
  *manifest.mutable_shmem_extras() = state.shmem_extras;
  if (state.setgroups_denied) manifest.set_setgroups_denied(true);
  *manifest.mutable_unix_extras() = state.unix_extras;
  *manifest.mutable_packet_extras() = state.packet_extras;
  *manifest.mutable_memory_extras() = state.memory_extras;
  *manifest.mutable_pipe_extras() = state.pipe_extras;
  *manifest.mutable_file_extras() = state.file_extras;
  *manifest.mutable_event_extras() = state.event_extras;
  *manifest.mutable_tty_extras() = state.tty_extras;
  *manifest.mutable_fanotify_extras() = state.fanotify_extras;
  *manifest.mutable_net_sysctls() = state.net_sysctls;
  if (state.user_ns_owner != 0) manifest.set_user_ns_owner(state.user_ns_owner);
  if (!state.network_lock.empty()) manifest.set_network_lock(state.network_lock);
  manifest.set_self_crc32c(manifest_sum(manifest));
  TRY(put(Kind::kManifest, std::string(kManifestName), manifest));
  if (sync) TRY(Syncer(state.staging.get(), TRY(list_dir(state.staging.get(), "."))).run());
  if (state.replace) TRY(remove_previous(state.dir.get()));

  std::vector<std::string> moved;
  if (auto result = move_all(state, sync, moved); !result) {
    for (const auto& name : moved) ::unlinkat(state.dir.get(), name.c_str(), 0);
    return result;
  }
  remove_staging(state.dir.get(), state.staging_name);
  state.staging.reset();
  return {};
}

}  // namespace stasis::image
