// SPDX-License-Identifier: Apache-2.0
#include "engine/image/stats.h"

#include "engine/base/io.h"
#include "engine/image/magic.h"

namespace stasis::image {
namespace {

// proto2 readers (go-criu among them) reject a message whose required fields are absent.
void fill_required(google::protobuf::Message& message) {
  const auto* type = message.GetDescriptor();
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto* field = type->field(i);
    if (!field->is_required() || reflection->HasField(message, field)) continue;
    if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_UINT32)
      reflection->SetUInt32(&message, field, 0);
    if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_UINT64)
      reflection->SetUInt64(&message, field, 0);
  }
}

Result<void> write_stats(int work_dirfd, const std::string& name, const pb::stats_entry& stats) {
  std::string bytes = head_bytes(kind_info(Kind::kStats));
  const size_t size = stats.ByteSizeLong();
  for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(size >> shift & 0xff);
  if (!stats.AppendToString(&bytes)) return fail(Code::kInternal, cat(name, ": record not serialised"));
  Fd fd = TRY(open_at(work_dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600));
  return write_full(fd.get(), bytes.data(), bytes.size(), name);
}

}  // namespace

Result<void> write_dump_stats(int work_dirfd, pb::dump_stats_entry stats) {
  fill_required(stats);
  pb::stats_entry entry;
  *entry.mutable_dump() = std::move(stats);
  return write_stats(work_dirfd, "stats-dump", entry);
}

Result<void> write_restore_stats(int work_dirfd, pb::restore_stats_entry stats) {
  fill_required(stats);
  pb::stats_entry entry;
  *entry.mutable_restore() = std::move(stats);
  return write_stats(work_dirfd, "stats-restore", entry);
}

Result<pb::stats_entry> read_stats(int work_dirfd, const std::string& name) {
  constexpr size_t kMost = 64 << 10;
  const std::string bytes = TRY(read_file_at(work_dirfd, name, kMost));
  const std::string head = head_bytes(kind_info(Kind::kStats));
  const auto corrupt = [&](std::string_view why) {
    return fail(Error(Code::kImageCorrupt, cat(name, ": ", why)).about(name));
  };
  if (!bytes.starts_with(head) || bytes.size() < head.size() + 4) return corrupt("not a statistics file");
  size_t size = 0;
  for (size_t i = 0; i < 4; ++i)
    size |= static_cast<size_t>(static_cast<unsigned char>(bytes[head.size() + i])) << (8 * i);
  pb::stats_entry stats;
  if (size > bytes.size() - head.size() - 4 ||
      !stats.ParseFromArray(bytes.data() + head.size() + 4, static_cast<int>(size)))
    return corrupt("its record cannot be read");
  return stats;
}

}  // namespace stasis::image
