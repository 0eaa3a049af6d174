// SPDX-License-Identifier: Apache-2.0
#include "engine/image/pagemap.h"

#include <sys/stat.h>

#include <algorithm>
#include <limits>

#include "proto/mm.pb.h"

namespace stasis::image {
namespace {

constexpr uint64_t kAddressEnd = uint64_t{1} << 63;  // user addresses are below, on every architecture
constexpr uint64_t kMaxEntryPages = std::numeric_limits<uint32_t>::max();

Result<void> check_supported(const pb::pagemap_entry& entry, const RecordReader& file) {
  const uint32_t flags = entry.has_flags() ? entry.flags() : entry.in_parent() ? kPageInParent : kPagePresent;
  auto refuse = [&](std::string_view what) {
    return fail(Error(Code::kUnsupported, cat("pages at ", hex(entry.vaddr()), " are ", what))
                    .about(file.corrupt({}).object()));
  };
  if (flags & kPageInParent || entry.in_parent()) return refuse("in a parent checkpoint");
  if (entry.has_compressed_blocks()) return refuse("compressed");
  if (flags & ~(kPageLazy | kPagePresent)) return refuse(cat("stored with unknown flags ", hex(flags)));
  if (!(flags & kPagePresent)) return refuse("not in the images (lazy)");
  return {};
}

}  // namespace

Result<Pagemap> read_pagemap(const Reader& images, const std::string& name) {
  RecordReader file = TRY(images.records(Kind::kPagemap, name));
  pb::pagemap_head head;
  if (!TRY(file.next(head))) return fail(file.corrupt("no pagemap head"));
  Pagemap map;
  map.pages_id = head.pages_id();
  const std::string pages = pages_name(map.pages_id);
  uint64_t room = 0;  // pages the pages file has left
  uint64_t offset = 0, end = 0;
  pb::pagemap_entry entry;
  while (TRY(file.next(entry))) {
    if (map.runs.empty()) {
      Fd fd = TRY(images.open_raw(pages));
      struct stat st {};
      if (::fstat(fd.get(), &st) < 0) return fail_sys("fstat", pages);
      room = static_cast<uint64_t>(st.st_size) / kPageSize;
    }
    TRY(check_supported(entry, file));
    const uint64_t vaddr = entry.vaddr();
    const uint64_t count = entry.has_wide_nr_pages() ? entry.wide_nr_pages() : entry.nr_pages();
    if (vaddr % kPageSize || vaddr >= kAddressEnd || count == 0 || count > (kAddressEnd - vaddr) / kPageSize)
      return fail(file.corrupt(cat("pages at ", hex(vaddr), ", ", count, " of them")));
    if (vaddr < end) return fail(file.corrupt(cat("pages at ", hex(vaddr), " overlap or are out of order")));
    if (count > room) return fail(file.corrupt(cat(pages, " is too short for the pages at ", hex(vaddr))));
    map.runs.push_back({vaddr, count, offset});
    end = vaddr + count * kPageSize;
    offset += count * kPageSize;
    room -= count;
  }
  return map;
}

Result<PagemapWriter> PagemapWriter::create(Writer& images, const std::string& name, uint32_t pages_id) {
  PagemapWriter writer(TRY(images.open(Kind::kPagemap, name)));
  pb::pagemap_head head;
  head.set_pages_id(pages_id);
  TRY(writer.file_.append(head));
  return writer;
}

Result<uint64_t> PagemapWriter::add(uint64_t vaddr, uint64_t nr_pages) {
  if (vaddr % kPageSize || nr_pages == 0 || vaddr < end_)
    return fail(Code::kInternal, cat("pagemap: ", nr_pages, " pages at ", hex(vaddr), " after ", hex(end_)));
  if (vaddr != end_) {
    TRY(flush());
    start_ = vaddr;
  }
  end_ = vaddr + nr_pages * kPageSize;
  const uint64_t offset = total_pages_ * kPageSize;
  total_pages_ += nr_pages;
  return offset;
}

Result<void> PagemapWriter::flush() {
  while (start_ < end_) {
    const uint64_t count = std::min((end_ - start_) / kPageSize, kMaxEntryPages);
    pb::pagemap_entry entry;
    entry.set_vaddr(start_);
    entry.set_nr_pages(static_cast<uint32_t>(count));
    entry.set_flags(kPagePresent);
    TRY(file_.append(entry));
    start_ += count * kPageSize;
  }
  return {};
}

Result<void> PagemapWriter::finish() {
  TRY(flush());
  return file_.close();
}

}  // namespace stasis::image
