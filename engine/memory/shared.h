// SPDX-License-Identifier: Apache-2.0
// Memory that several tasks share and that no file system holds: shared anonymous mappings, and the contents of
// memfds and System V segments. One object is one inode of the kernel's own shmem or hugetlbfs mount; in the images it
// is pagemap-shmem-ID.img with its pages file. shmem_zero_setup(), memfd_create(2), shmget(2).
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/image/pagemap.h"
#include "engine/image/reader.h"
#include "engine/image/writer.h"
#include "engine/memory/vma.h"
#include "engine/procfs/procfs.h"

namespace stasis::memory {

// The objects met so far during a dump. The contents are written when one is met first; holes cost nothing.
class SharedObjects {
 public:
  // The first pages-ID.img that is free for them.
  SharedObjects(image::Writer& images, uint32_t first_pages_id) : images_(&images), next_pages_(first_pages_id) {}

  // The number of the object behind `fd` (open for reading).
  Result<uint64_t> id_of(int fd);
  // The same for a mapping; says in its entry which object it shows.
  Result<void> add(const procfs::Procfs& proc, pid_t pid, Vma& vma);
  // Contents of an object under a number that the caller has chosen.
  Result<void> dump(int fd, uint64_t id);

  // Ids of the System V segments that were dumped.
  void add_segment(uint64_t id) { segments_.insert(id); }
  bool has_segment(uint64_t id) const { return segments_.contains(id); }

  uint64_t pages_written() const { return pages_written_; }

 private:
  image::Writer* images_;
  uint32_t next_pages_;
  uint64_t next_id_ = uint64_t{1} << 31;  // above every id of a System V segment, which CRIU numbers likewise
  uint64_t pages_written_ = 0;
  std::map<std::pair<dev_t, ino_t>, uint64_t> known_;
  std::set<uint64_t> segments_;
};

// One object of the images.
struct SharedImage {
  uint64_t size = 0;
  uint64_t huge_page = 0;  // bytes; 0: ordinary pages
  bool reserve = false;    // accounted for (no MAP_NORESERVE)
  image::Pagemap pagemap;
};
using SharedImages = std::map<uint64_t, SharedImage>;

// Those that the mapping shows, read and checked, into `out`.
Result<void> load_shared(const image::Reader& images, const pb::vma_entry& vma, SharedImages& out);
// Contents of object `id`; a file that is not there is an object without any.
Result<image::Pagemap> load_shared_pages(const image::Reader& images, uint64_t id, uint64_t size);

// A new, empty object as an open file. `proc`: a /proc of the caller's. Not possible inside a user namespace.
Result<Fd> make_shared(const SharedImage& object, int proc);
// Fills an object of `size` bytes.
Result<void> fill_shared(const image::Reader& images, const image::Pagemap& pagemap, int fd, uint64_t size);
// The same where it is mapped already.
Result<void> fill_mapped(const image::Reader& images, const image::Pagemap& pagemap, void* at, uint64_t size);

// The file behind a mapping of this process that begins at `at`.
Result<Fd> open_own_mapping(void* at);
// Bytes of a huge page of the hugetlbfs that a file is on; 0: it is on another file system.
uint64_t huge_page_of(int fd);

// mmap(2) flag bits that say which size the huge pages have: MAP_HUGETLB and MAP_HUGE_*; memfd_create(2) has the same.
uint32_t huge_flags(uint64_t page_size);
// Without a size they mean that of x86: 2 MiB. 0: no huge pages.
uint64_t huge_size(uint64_t flags);

}  // namespace stasis::memory
