// SPDX-License-Identifier: Apache-2.0
// Any bytes as any image file: decoding, the inventory, the manifest, a pagemap. Nothing may
// crash, and what a pagemap promises (order, places inside the pages file) must hold.
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/io.h"
#include "engine/image/pagemap.h"
#include "engine/image/reader.h"
#include "engine/image/show.h"
#include "tests/support/fill_message.h"

namespace {

using namespace stasis;
using namespace stasis::image;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr uint64_t kPages = 8;

void put(int dirfd, const std::string& name, const std::string& bytes) {
  auto fd = open_at(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (!fd || !write_full(fd->get(), bytes.data(), bytes.size())) abort();
}

std::string framed(const Message& message) {
  const std::string bytes = message.SerializePartialAsString();
  std::string out;
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(bytes.size() >> shift & 0xff);
  return out + bytes;
}

std::string inventory_image() {
  pb::inventory_entry inventory;
  inventory.set_img_version(kImageVersion);
  return head_bytes(kind_info(Kind::kInventory)) + framed(inventory);
}

// A directory with an inventory and a pages file; removed at exit.
class Images {
 public:
  Images() {
    std::string pattern = std::filesystem::temp_directory_path() / "stasis-fuzz-XXXXXX";
    if (!::mkdtemp(pattern.data())) abort();
    path_ = pattern;
    dir_ = Fd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    put(dir_.get(), "pages-1.img", std::string(kPages * kPageSize, 'p'));
  }
  ~Images() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  int fd() const { return dir_.get(); }

 private:
  std::string path_;
  Fd dir_;
};

void check_pagemap(const Reader& images) {
  const auto map = read_pagemap(images, "pagemap-1.img");
  if (!map) return;
  uint64_t end = 0, offset = 0;
  for (const auto& run : map->runs) {
    if (run.vaddr < end || run.nr_pages == 0 || run.file_offset != offset) abort();
    end = run.vaddr + run.nr_pages * kPageSize;
    offset += run.nr_pages * kPageSize;
    if (end <= run.vaddr || (map->pages_id == 1 && offset > kPages * kPageSize)) abort();
  }
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  std::vector<std::string> seeds = {inventory_image()};
  for (const auto& info : all_kinds()) {
    const std::unique_ptr<Message> message(info.prototype()->New());
    test::fill(*message, 1);
    seeds.push_back(head_bytes(info) + framed(*message) + std::string(8, '\0'));
  }
  const std::string head = head_bytes(kind_info(Kind::kPagemap));
  seeds.push_back(head + std::string("\2\0\0\0\x08\x01\7\0\0\0\x08\x80\x20\x10\x02\x20\x04", 17));
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Images images;
  const std::string input(reinterpret_cast<const char*>(data), size);
  put(images.fd(), "inventory.img", input);
  (void)to_json(images.fd(), "inventory.img");
  (void)Reader::open(images.fd());

  put(images.fd(), "inventory.img", inventory_image());
  put(images.fd(), "pagemap-1.img", input);
  if (auto reader = Reader::open(images.fd()))
    check_pagemap(*reader);
  else
    abort();  // a good inventory and no manifest

  put(images.fd(), "stasis-manifest.img", input);
  (void)Reader::open(images.fd());
  ::unlinkat(images.fd(), "stasis-manifest.img", 0);
  return 0;
}
