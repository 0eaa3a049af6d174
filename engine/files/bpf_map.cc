// SPDX-License-Identifier: Apache-2.0
// BPF maps of plain data, bpf(2): arrays and hashes, with name, limits, contents, whether they are frozen. What a
// program in the kernel uses would be another map for it, and is refused, as are all other kinds.
#include "engine/kernel/bpf_map.h"

#include <fcntl.h>
#include <linux/bpf.h>

#include <algorithm>

#include "engine/files/kind.h"
#include "engine/procfs/fdinfo.h"

namespace stasis::files {
namespace {

constexpr uint32_t kKnownFlags =
    BPF_F_NO_PREALLOC | BPF_F_ZERO_SEED | BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG | BPF_F_MMAPABLE;
constexpr uint32_t kLargestKey = 1u << 20, kLargestValue = 64u << 20;
constexpr char kDataFile[] = "bpfmap-data.img";

bool matches(const Candidate& c) { return c.link == "anon_inode:bpf-map"; }

bool is_known(uint32_t type, uint32_t flags) {
  return (type == BPF_MAP_TYPE_ARRAY || type == BPF_MAP_TYPE_HASH) && (flags & ~kKnownFlags) == 0;
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  const auto map = TRY_CTX(kernel::bpf_map_info(c.copy.get()), c.name());
  if (!is_known(map.type, map.flags) || map.typed || map.extra)
    return unsupported(c, cat("is a BPF map of a kind that cannot be checkpointed (type ", map.type, ", flags ",
                              hex(map.flags), map.typed ? ", with BTF)" : ")"));
  if (env.users) return unsupported(c, "is a BPF map, which cannot be made in a user namespace");
  if (TRY(kernel::bpf_map_in_use(map.id))) return unsupported(c, "is a BPF map that a program in the kernel uses");
  return {};
}

Result<void> dump_contents(const kernel::BpfMap& map, DumpOutput& out) {
  const auto [at, fresh] = out.bpf_maps.try_emplace(map.id);
  if (!fresh) return {};
  const Fd fd = TRY(kernel::open_bpf_map(map.id, O_RDONLY));
  const auto contents = TRY(kernel::read_bpf_map(fd.get(), map));
  auto& entry = at->second.entry;
  if ((contents.keys.size() | contents.values.size()) >> 32)
    return fail(Error(Code::kUnsupportedFile, cat("BPF map ", map.id, " holds more than 4 GiB")).about(map.name));
  entry.set_map_id(map.id), entry.set_count(contents.count);
  entry.set_keys_bytes(static_cast<uint32_t>(contents.keys.size()));
  entry.set_values_bytes(static_cast<uint32_t>(contents.values.size()));
  at->second.bytes = contents.keys + contents.values;
  return {};
}

Result<void> dump(const Candidate& c, const DumpEnv&, DumpOutput& out, pb::file_entry& entry) {
  const auto map = TRY(kernel::bpf_map_info(c.copy.get()));
  entry.set_type(pb::BPFMAP);
  auto& bpf = *entry.mutable_bpf();
  bpf.set_id(entry.id());
  bpf.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  bpf.set_pos(c.info.pos);
  set_no_owner(bpf.mutable_fown());
  bpf.set_map_type(map.type), bpf.set_key_size(map.key_size), bpf.set_value_size(map.value_size);
  bpf.set_map_id(map.id), bpf.set_max_entries(map.max_entries), bpf.set_map_flags(map.flags);
  bpf.set_map_name(map.name), bpf.set_map_extra(map.extra), bpf.set_ifindex(0);
  const auto memlock = procfs::field(c.info, "memlock"), frozen = procfs::field(c.info, "frozen");
  bpf.set_memlock(memlock ? parse_int<uint64_t>(*memlock).value_or(0) : 0);
  bpf.set_frozen(frozen && *frozen != "0");
  return dump_contents(map, out);
}

Result<void> write_contents(const DumpEnv&, DumpOutput& out) {
  if (out.bpf_maps.empty()) return {};
  auto file = TRY(out.images->open(image::Kind::kBpfmapData, kDataFile));
  for (const auto& [id, data] : out.bpf_maps) {
    TRY(file.append(data.entry));
    TRY(file.append_payload(data.bytes.data(), data.bytes.size()));
  }
  return file.close();
}

Result<std::string> read_bytes(image::RecordReader& file, uint64_t size) {
  std::string out;
  while (out.size() < size) out += TRY(file.payload(std::min<uint64_t>(size - out.size(), image::kMaxRecord)));
  return out;
}

Result<kernel::BpfMapContents> read_contents(const pb::bpfmap_file_entry& bpf, const image::Reader& images) {
  if (!images.exists(kDataFile)) return kernel::BpfMapContents();
  auto file = TRY(images.records(image::Kind::kBpfmapData, kDataFile));
  pb::bpfmap_data_entry entry;
  while (TRY(file.next(entry))) {
    if (uint64_t{entry.keys_bytes()} + entry.values_bytes() > file.remaining()) return fail(file.corrupt("a BPF map"));
    if (entry.map_id() != bpf.map_id()) {
      TRY(file.skip(uint64_t{entry.keys_bytes()} + entry.values_bytes()));
      continue;
    }
    if (entry.count() > bpf.max_entries() || uint64_t{entry.count()} * bpf.key_size() != entry.keys_bytes() ||
        uint64_t{entry.count()} * bpf.value_size() != entry.values_bytes())
      return fail(file.corrupt("contents of a BPF map"));
    kernel::BpfMapContents out{entry.count(), TRY(read_bytes(file, entry.keys_bytes())),
                               TRY(read_bytes(file, entry.values_bytes()))};
    return out;
  }
  return kernel::BpfMapContents();
}

Result<void> check_image(const pb::file_entry& entry, const FileEntries&, const image::Reader& images) {
  if (!entry.has_bpf()) return corrupt_file(entry.id(), "is no BPF map");
  const auto& bpf = entry.bpf();
  if (!is_known(bpf.map_type(), bpf.map_flags()) || bpf.ifindex() || bpf.map_extra())
    return fail(Error(Code::kUnsupportedFile, cat("files.img: file ", entry.id(), " is a BPF map of another kind"))
                    .about(cat("file ", entry.id())));
  if (bpf.key_size() == 0 || bpf.key_size() > kLargestKey || bpf.value_size() == 0 ||
      bpf.value_size() > kLargestValue || bpf.max_entries() == 0 || bpf.map_name().size() >= BPF_OBJ_NAME_LEN)
    return corrupt_file(entry.id(), "is an impossible BPF map");
  TRY(read_contents(bpf, images));
  return {};
}

Result<Fd> make_map(const pb::bpfmap_file_entry& bpf, const image::Reader& images) {
  kernel::BpfMap map;
  map.type = bpf.map_type(), map.key_size = bpf.key_size(), map.value_size = bpf.value_size();
  map.max_entries = bpf.max_entries(), map.flags = bpf.map_flags(), map.name = bpf.map_name();
  Fd fd = TRY(kernel::create_bpf_map(map));
  TRY(kernel::fill_bpf_map(fd.get(), map, TRY(read_contents(bpf, images))));
  if (bpf.frozen()) TRY(kernel::freeze_bpf_map(fd.get()));
  return fd;
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  const auto& bpf = entry.bpf();
  auto [at, fresh] = env.open_bpf_maps.try_emplace(bpf.map_id());
  if (fresh) at->second = TRY(make_map(bpf, *env.images));
  const auto map = TRY(kernel::bpf_map_info(at->second.get()));
  return kernel::open_bpf_map(map.id, static_cast<int>(bpf.flags()) & O_ACCMODE);
}

}  // namespace

const FileKind kBpfMap = {.name = "BPF map",
                          .type = pb::BPFMAP,
                          .matches = matches,
                          .check = check,
                          .dump = dump,
                          .restore = restore,
                          .finish_dump = write_contents,
                          .check_image = check_image};

}  // namespace stasis::files
