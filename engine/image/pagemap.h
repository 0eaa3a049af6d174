// SPDX-License-Identifier: Apache-2.0
// pagemap-ID.img: which pages of an address space (or shared memory object) lie where
// in pages-N.img. Pages lie there without gaps, in the order of the entries.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/image/reader.h"
#include "engine/image/writer.h"

namespace stasis::image {

inline constexpr uint64_t kPageSize = 4096;

// pagemap_entry.flags
inline constexpr uint32_t kPageInParent = 1;  // contents in the parent checkpoint
inline constexpr uint32_t kPageLazy = 2;      // may be brought in late
inline constexpr uint32_t kPagePresent = 4;   // contents in the pages file

struct PageRun {
  uint64_t vaddr = 0;  // page-aligned
  uint64_t nr_pages = 0;
  uint64_t file_offset = 0;  // in the pages file
};

struct Pagemap {
  uint64_t pages_id = 0;      // pages-ID.img
  std::vector<PageRun> runs;  // ascending, not overlapping, all inside the pages file
};

// Refuses (kUnsupported) pages in a parent, lazy pages that are not here, and compression.
Result<Pagemap> read_pagemap(const Reader& images, const std::string& name);

// Writes one pagemap. Runs come in ascending order; adjacent ones are merged.
class PagemapWriter {
 public:
  static Result<PagemapWriter> create(Writer& images, const std::string& name, uint32_t pages_id);
  // Returns the offset in the pages file where these pages belong.
  Result<uint64_t> add(uint64_t vaddr, uint64_t nr_pages);
  uint64_t total_pages() const { return total_pages_; }
  Result<void> finish();

 private:
  explicit PagemapWriter(RecordFile file) : file_(std::move(file)) {}
  Result<void> flush();
  RecordFile file_;
  uint64_t start_ = 0, end_ = 0;  // the run being merged; empty if equal
  uint64_t total_pages_ = 0;
};

}  // namespace stasis::image
