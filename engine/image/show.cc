// SPDX-License-Identifier: Apache-2.0
#include "engine/image/show.h"

#include <algorithm>
#include <memory>

#include "engine/base/io.h"
#include "engine/image/json.h"
#include "engine/image/reader.h"
#include "proto/files.pb.h"
#include "proto/mm.pb.h"
#include "proto/namespaces.pb.h"
#include "proto/sockets.pb.h"

namespace stasis::image {
namespace {

using google::protobuf::Message;

constexpr uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

// Each record's own type; the first record of some kinds differs from the rest.
const Message& record_type(const KindInfo& info, size_t index) {
  if (info.kind == Kind::kPagemap && index == 0) return pb::pagemap_head::default_instance();
  if (info.kind == Kind::kGhostFile && index > 0) return pb::ghost_chunk_entry::default_instance();
  return *info.prototype();
}

template <class T>
const T& as(const Message& message) {
  return static_cast<const T&>(message);
}

// A message queue is followed by its messages: a record and padded text each.
Result<uint64_t> skip_messages(RecordReader& file, uint32_t count) {
  const uint64_t start = file.offset();
  pb::ipc_msg message;
  for (uint32_t i = 0; i < count; ++i) {
    if (!TRY(file.next(message))) return fail(file.corrupt(cat(count - i, " messages are missing")));
    TRY(file.skip(round_up(message.msize(), 8)));
  }
  return file.offset() - start;
}

// Bytes between this record and the next.
Result<uint64_t> skip_payload(RecordReader& file, const Message& record, size_t index, bool ghost_chunks) {
  uint64_t size = 0;
  switch (file.kind().payload) {
    case Payload::kNone: return uint64_t{0};
    case Payload::kPipe: size = as<pb::pipe_data_entry>(record).bytes(); break;
    case Payload::kPacket: size = as<pb::sk_packet_entry>(record).length(); break;
    case Payload::kSem: size = round_up(as<pb::ipc_sem_entry>(record).nsems() * uint64_t{2}, 8); break;
    case Payload::kMsgQueue: return skip_messages(file, as<pb::ipc_msg_entry>(record).qnum());
    case Payload::kTcp: {
      const auto& tcp = as<pb::tcp_stream_entry>(record);
      size = uint64_t{tcp.inq_len()} + tcp.outq_len();
      break;
    }
    case Payload::kBpfMap: {
      const auto& map = as<pb::bpfmap_data_entry>(record);
      size = uint64_t{map.keys_bytes()} + map.values_bytes();
      break;
    }
    case Payload::kShm: {
      const auto& shm = as<pb::ipc_shm_entry>(record);
      if (shm.size() > file.remaining() && !shm.in_pagemaps()) return fail(file.corrupt("truncated shared memory"));
      size = shm.in_pagemaps() ? 0 : round_up(shm.size(), 4);
      break;
    }
    case Payload::kGhost:
      size = index > 0 ? as<pb::ghost_chunk_entry>(record).len() : ghost_chunks ? 0 : file.remaining();
      break;
  }
  TRY(file.skip(size));
  return size;
}

Result<Selection> make_selection(const KindInfo& info, const std::vector<std::string>& paths) {
  Selection selection;
  for (const auto& path : paths) {
    const bool known = select_field(*record_type(info, 0).GetDescriptor(), path, selection) |
                       select_field(*record_type(info, 1).GetDescriptor(), path, selection);
    if (!known)
      return fail(Error(Code::kUsage, cat("an image of kind ", info.crit_name, " has no field ", path)).about(path));
  }
  return selection;
}

}  // namespace

Result<std::string> to_json(int dirfd, const std::string& name, const std::vector<std::string>& field_paths) {
  RecordReader file = TRY(RecordReader::open_any(dirfd, name));
  const KindInfo& info = file.kind();
  const Selection selection = TRY(make_selection(info, field_paths));
  std::string out = cat("{\n  \"magic\": ", json_quote(info.crit_name), ",\n  \"entries\": [");
  bool ghost_chunks = false;
  for (size_t index = 0;; ++index) {
    const std::unique_ptr<Message> record(record_type(info, index).New());
    if (!TRY(file.next(*record))) {
      out += index > 0 ? "\n  ]\n}\n" : "]\n}\n";
      return out;
    }
    if (info.kind == Kind::kGhostFile && index == 0) ghost_chunks = as<pb::ghost_file_entry>(*record).chunks();
    std::string tail;
    const uint64_t extra = TRY(skip_payload(file, *record, index, ghost_chunks));
    if (info.payload != Payload::kNone && field_paths.empty()) tail = cat("\"extra_bytes\": ", extra);
    out += index > 0 ? ",\n    " : "\n    ";
    append_json(out, *record, selection, 4, tail);
  }
}

Result<std::vector<std::string>> image_names(int dirfd) {
  std::vector<std::string> names;
  for (auto& name : TRY(list_dir(dirfd, ".")))
    if (valid_file_name(name) && RecordReader::open_any(dirfd, name)) names.push_back(std::move(name));
  std::ranges::sort(names);
  return names;
}

}  // namespace stasis::image
