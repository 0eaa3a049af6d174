// SPDX-License-Identifier: Apache-2.0
#include "engine/image/reader.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "engine/base/io.h"
#include "engine/image/manifest.h"
#include "proto/files.pb.h"
#include "proto/mm.pb.h"
#include "proto/namespaces.pb.h"

namespace stasis::image {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::Message;

// A kind's own message, or the second type that some files hold.
bool accepts(const KindInfo& info, const Descriptor* type) {
  if (type == info.prototype()->GetDescriptor()) return true;
  switch (info.kind) {
    case Kind::kPagemap: return type == pb::pagemap_head::descriptor();
    case Kind::kGhostFile: return type == pb::ghost_chunk_entry::descriptor();
    case Kind::kIpcMsg: return type == pb::ipc_msg::descriptor();
    default: return false;
  }
}

uint32_t le32(const unsigned char* p) {
  return p[0] | static_cast<uint32_t>(p[1]) << 8 | static_cast<uint32_t>(p[2]) << 16 |
         static_cast<uint32_t>(p[3]) << 24;
}

}  // namespace

Result<Fd> open_image(int dirfd, const std::string& name) {
  if (!valid_file_name(name)) return fail(Code::kImageCorrupt, cat(json_quote(name), " is not an image file name"));
  // O_NONBLOCK: a fifo put there must not hang us; it has no effect on regular files.
  auto opened = open_at(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  if (!opened) {
    const int err = opened.error().sys_errno();
    if (err == ENOENT)
      return fail(Error(Code::kImageMissing, cat(name, " is not in the image directory")).about(name).with_errno(err));
    if (err == ELOOP)
      return fail(Error(Code::kImageCorrupt, cat(name, " is a symbolic link")).about(name).with_errno(err));
    return opened;
  }
  struct stat st {};
  if (::fstat(opened->get(), &st) < 0) return fail_sys("fstat", name);
  if (!S_ISREG(st.st_mode)) return fail(Error(Code::kImageCorrupt, cat(name, " is not a regular file")).about(name));
  return opened;
}

Result<RecordReader> RecordReader::open(int dirfd, const std::string& name, Kind kind) {
  return open(TRY(open_image(dirfd, name)), name, kind);
}

Result<RecordReader> RecordReader::open(Fd file, const std::string& name, Kind kind) {
  RecordReader reader = TRY(open_any(std::move(file), name));
  if (reader.kind().kind != kind)
    return fail(Error(Code::kImageCorrupt,
                      cat(name, ": has the magic of ", reader.kind().crit_name, ", not of ", kind_info(kind).crit_name))
                    .about(name));
  return reader;
}

Result<RecordReader> RecordReader::open_any(int dirfd, const std::string& name) {
  return open_any(TRY(open_image(dirfd, name)), name);
}

Result<RecordReader> RecordReader::open_any(Fd file, const std::string& name) {
  RecordReader reader;
  reader.name_ = name;
  reader.fd_ = std::move(file);
  struct stat st {};
  if (::fstat(reader.fd_.get(), &st) < 0) return fail_sys("fstat", name);
  reader.size_ = static_cast<uint64_t>(st.st_size);
  TRY(reader.read_head());
  return reader;
}

Result<void> RecordReader::read_head() {
  unsigned char word[4];
  TRY(read_bytes(word, sizeof(word)));
  const uint32_t first = le32(word);
  const bool two_words = first == kCommonMagic || first == kServiceMagic;
  if (two_words) TRY(read_bytes(word, sizeof(word)));
  kind_ = find_magic(le32(word));
  if (!kind_) return fail(corrupt(cat("unknown magic ", hex(le32(word)))));
  const uint32_t wanted = kind_->head == Head::kService ? kServiceMagic : kCommonMagic;
  if (two_words ? kind_->head == Head::kNone || first != wanted : kind_->head != Head::kNone)
    return fail(corrupt(cat("magic of ", kind_->crit_name, " with a wrong first number")));
  return {};
}

Error RecordReader::corrupt(std::string what) const {
  return Error(Code::kImageCorrupt, cat(name_, ": ", what, " at offset ", offset_)).about(name_);
}

Result<void> RecordReader::read_bytes(void* data, uint64_t size) {
  if (size > remaining()) return fail(corrupt(cat("truncated: ", size, " bytes wanted, ", remaining(), " left")));
  auto* p = static_cast<char*>(data);
  for (uint64_t done = 0; done < size;) {
    const ssize_t n = ::pread(fd_.get(), p + done, size - done, static_cast<off_t>(offset_ + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_sys("read", name_);
    if (n == 0) return fail(corrupt("truncated while being read"));
    done += static_cast<uint64_t>(n);
  }
  offset_ += size;
  return {};
}

Result<bool> RecordReader::next(Message& message) {
  if (!accepts(*kind_, message.GetDescriptor()))
    return fail(Code::kInternal, cat(name_, " does not hold ", message.GetTypeName()));
  message.Clear();
  if (remaining() == 0) return false;
  const uint64_t start = offset_;
  unsigned char word[4];
  TRY(read_bytes(word, sizeof(word)));
  const uint32_t size = le32(word);
  if (size > kMaxRecord) return fail(corrupt(cat("a record of ", size, " bytes")));
  const std::string bytes = TRY(payload(size));
  // "Partial", because the checking variant prints what is missing to stderr itself.
  if (!message.ParsePartialFromString(bytes)) {
    offset_ = start;
    return fail(corrupt(cat("not a valid ", message.GetTypeName())));
  }
  if (!message.IsInitialized()) {
    offset_ = start;
    return fail(corrupt(cat(message.GetTypeName(), " lacks ", message.InitializationErrorString())));
  }
  return true;
}

Result<std::string> RecordReader::payload(uint64_t size) {
  if (size > kMaxRecord) return fail(corrupt(cat("a payload of ", size, " bytes")));
  if (size > remaining()) return fail(corrupt(cat("truncated: ", size, " bytes wanted, ", remaining(), " left")));
  std::string bytes(size, '\0');
  TRY(read_bytes(bytes.data(), size));
  return bytes;
}

Result<void> RecordReader::skip(uint64_t size) {
  if (size > remaining()) return fail(corrupt(cat("truncated: ", size, " bytes wanted, ", remaining(), " left")));
  offset_ += size;
  return {};
}

Result<Reader> Reader::open(int dirfd) {
  Reader reader;
  auto dir = open_at(dirfd, ".", O_RDONLY | O_DIRECTORY);
  if (!dir) return fail(std::move(dir).error().with_code(Code::kImageDir));
  reader.dir_ = *std::move(dir);
  if (::faccessat(reader.dirfd(), kInventoryName.data(), F_OK, AT_SYMLINK_NOFOLLOW) < 0)
    return fail(Error(Code::kImageMissing, "inventory.img is not there: not a finished checkpoint")
                    .about(std::string(kInventoryName))
                    .with_errno(errno));
  if (::faccessat(reader.dirfd(), kManifestName.data(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
    TRY(reader.read_one(Kind::kManifest, std::string(kManifestName), reader.manifest_.emplace()));
    TRY(verify_manifest(reader.dirfd(), *reader.manifest_));
    for (const auto& file : reader.manifest_->files()) reader.listed_.insert(file.name());
  }
  reader.inventory_ = TRY(reader.read<pb::inventory_entry>(Kind::kInventory, std::string(kInventoryName)));
  const uint32_t version = reader.inventory_.img_version();
  if (version != kImageVersion && (version != kSharedImageVersion || !reader.manifest_))
    return fail(Error(Code::kImageVersion, cat("inventory.img has image version ", reader.inventory_.img_version(),
                                               ", only ", kImageVersion, " is known"))
                    .about(std::string(kInventoryName)));
  return reader;
}

Result<void> Reader::check_listed(const std::string& name) const {
  if (manifest_ && !listed_.empty() && !listed_.contains(name))
    return fail(Error(Code::kImageMissing, cat(name, " is not part of this checkpoint")).about(name));
  return {};
}

bool Reader::exists(const std::string& name) const {
  return valid_file_name(name) && check_listed(name) &&
         ::faccessat(dirfd(), name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

Result<RecordReader> Reader::records(Kind kind, const std::string& name) const {
  return RecordReader::open(TRY(open_raw(name)), name, kind);
}

Result<Fd> Reader::open_raw(const std::string& name) const {
  TRY(check_listed(name));
  const auto held = held_.find(name);
  if (held == held_.end()) return open_image(dirfd(), name);
  if (::lseek(held->second.get(), 0, SEEK_SET) < 0) return fail_sys("lseek", name);
  return dup_at_least(held->second.get());
}

Result<void> Reader::hold_open(const std::vector<std::string>& names) {
  for (const auto& name : names) held_[name] = TRY(open_raw(name));
  return {};
}

Result<void> Reader::read_one(Kind kind, const std::string& name, Message& message) const {
  RecordReader file = TRY(records(kind, name));
  if (!TRY(file.next(message))) return fail(file.corrupt("no record"));
  if (file.remaining() > 0) return fail(file.corrupt("more than one record"));
  return {};
}

}  // namespace stasis::image
