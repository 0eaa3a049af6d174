// SPDX-License-Identifier: Apache-2.0
#include "engine/image/reader.h"

#include <gtest/gtest.h>

#include "engine/image/crc32c.h"
#include "engine/image/manifest.h"
#include "engine/image/pagemap.h"
#include "engine/image/writer.h"
#include "proto/core.pb.h"
#include "proto/files.pb.h"
#include "tests/unit/engine/image/temp_dir.h"

namespace stasis::image {
namespace {

std::string le32(uint32_t value) {
  std::string out;
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(value >> shift & 0xff);
  return out;
}

std::string framed(const google::protobuf::Message& message) {
  const std::string bytes = message.SerializeAsString();
  return le32(static_cast<uint32_t>(bytes.size())) + bytes;
}

pb::inventory_entry inventory(uint32_t version = kImageVersion) {
  pb::inventory_entry entry;
  entry.set_img_version(version);
  return entry;
}

std::string inventory_file(uint32_t version = kImageVersion) {
  return head_bytes(kind_info(Kind::kInventory)) + framed(inventory(version));
}

pb::pstree_entry task(uint32_t pid) {
  pb::pstree_entry entry;
  entry.set_pid(pid);
  entry.set_ppid(1);
  entry.set_pgid(pid);
  entry.set_sid(pid);
  entry.add_threads(pid);
  return entry;
}

pb::pipe_data_entry pipe_data(uint32_t id, uint32_t bytes) {
  pb::pipe_data_entry entry;
  entry.set_pipe_id(id);
  entry.set_bytes(bytes);
  return entry;
}

// A small checkpoint with every framing: records, payloads, pagemap, raw pages.
Result<void> write_small(int dirfd) {
  Writer writer = TRY(Writer::create(dirfd, false));
  TRY(writer.put_all(Kind::kPstree, "pstree.img", std::vector{task(1), task(2)}));
  RecordFile pipes = TRY(writer.open(Kind::kPipesData, "pipes-data.img"));
  TRY(pipes.append(pipe_data(7, 5)));
  TRY(pipes.append_payload("hello", 5));
  TRY(pipes.append(pipe_data(8, 0)));
  TRY(pipes.close());
  PagemapWriter pagemap = TRY(PagemapWriter::create(writer, "pagemap-1.img", 1));
  TRY(pagemap.add(0x1000, 1));
  TRY(pagemap.finish());
  RawFile pages = TRY(writer.open_raw("pages-1.img"));
  TRY(pages.append(std::string(4096, 'p').data(), 4096));
  TRY(pages.close());
  TRY(writer.put(Kind::kInventory, "inventory.img", inventory()));
  return writer.commit(false);
}

// Everything a restore would read.
Result<void> read_small(int dirfd) {
  Reader reader = TRY(Reader::open(dirfd));
  if (TRY(reader.read_all<pb::pstree_entry>(Kind::kPstree, "pstree.img")).size() != 2)
    return fail(Code::kImageCorrupt, "pstree.img: two tasks expected");
  RecordReader pipes = TRY(reader.records(Kind::kPipesData, "pipes-data.img"));
  pb::pipe_data_entry entry;
  while (TRY(pipes.next(entry))) TRY(pipes.payload(entry.bytes()));
  if (entry.has_pipe_id() || TRY(read_pagemap(reader, "pagemap-1.img")).runs.size() != 1)
    return fail(Code::kImageCorrupt, "one run expected");
  return {};
}

const std::vector<std::string> kSmallFiles = {"inventory.img", "pstree.img",  "pipes-data.img",
                                              "pagemap-1.img", "pages-1.img", "stasis-manifest.img"};

TEST(Reader, RoundTrip) {
  TempDir dir;
  ASSERT_OK(write_small(dir.fd()));
  ASSERT_OK(read_small(dir.fd()));
  auto reader = Reader::open(dir.fd());
  ASSERT_OK(reader);
  auto tasks = reader->read_all<pb::pstree_entry>(Kind::kPstree, "pstree.img");
  ASSERT_OK(tasks);
  EXPECT_EQ(tasks->at(1).SerializeAsString(), task(2).SerializeAsString());
  auto pipes = reader->records(Kind::kPipesData, "pipes-data.img");
  ASSERT_OK(pipes);
  pb::pipe_data_entry entry;
  ASSERT_TRUE(*pipes->next(entry));
  EXPECT_EQ(*pipes->payload(entry.bytes()), "hello");
  ASSERT_TRUE(*pipes->next(entry));
  EXPECT_EQ(entry.pipe_id(), 8u);
  EXPECT_FALSE(*pipes->next(entry));
  EXPECT_TRUE(reader->exists("pages-1.img"));
  EXPECT_FALSE(reader->exists("pages-2.img"));
}

TEST(Reader, TruncationAtEveryByteIsDetected) {
  TempDir dir;
  ASSERT_OK(write_small(dir.fd()));
  for (const auto& name : kSmallFiles) {
    const std::string whole = dir.content(name);
    for (size_t size = 0; size < whole.size(); ++size) {
      dir.write(name, whole.substr(0, size));
      const auto result = read_small(dir.fd());
      ASSERT_FALSE(result) << name << " cut to " << size;
      ASSERT_EQ(result.error().code(), Code::kImageCorrupt) << result.error().line();
      ASSERT_NE(result.error().line().find(name), std::string::npos) << result.error().line();
    }
    dir.write(name, whole);
  }
  ASSERT_OK(read_small(dir.fd()));
}

TEST(Reader, OneBitAnywhereIsDetected) {
  TempDir dir;
  ASSERT_OK(write_small(dir.fd()));
  for (const auto& name : {"inventory.img", "pstree.img", "pipes-data.img", "pagemap-1.img", "pages-1.img"}) {
    const std::string whole = dir.content(name);
    const size_t step = whole.size() > 1000 ? 97 : 1;
    for (size_t i = 0; i < whole.size(); i += step) {
      std::string changed = whole;
      changed[i] = static_cast<char>(changed[i] ^ 1 << i % 8);
      dir.write(name, changed);
      ASSERT_TRUE(fails_with(Reader::open(dir.fd()), Code::kImageCorrupt, name)) << i;
    }
    dir.write(name, whole);
  }
}

// Images of CRIU have no manifest: there truncation is found where records are cut.
TEST(Reader, TruncationWithoutManifestNeverGoesPastTheEnd) {
  TempDir dir;
  ASSERT_OK(write_small(dir.fd()));
  std::filesystem::remove(dir.path() + "/stasis-manifest.img");
  ASSERT_OK(read_small(dir.fd()));
  for (const auto& name : kSmallFiles) {
    if (name == "stasis-manifest.img") continue;
    const std::string whole = dir.content(name);
    for (size_t size = 0; size < whole.size(); ++size) {
      dir.write(name, whole.substr(0, size));
      const auto result = read_small(dir.fd());
      // A cut between two records is not visible in the format itself.
      if (result)
        ASSERT_TRUE(name == "pipes-data.img") << name << " cut to " << size;
      else
        ASSERT_EQ(result.error().code(), Code::kImageCorrupt) << result.error().line();
    }
    dir.write(name, whole);
  }
}

TEST(Reader, AMissingFileOfTheManifestIsNamed) {
  for (const auto& name : {"pstree.img", "pages-1.img"}) {
    TempDir dir;
    ASSERT_OK(write_small(dir.fd()));
    std::filesystem::remove(dir.path() + "/" + name);
    EXPECT_TRUE(fails_with(Reader::open(dir.fd()), Code::kImageMissing, name));
  }
}

TEST(Reader, NoInventoryIsNoCheckpoint) {
  TempDir dir;
  dir.write("core-1.img", "x");
  EXPECT_TRUE(fails_with(Reader::open(dir.fd()), Code::kImageMissing, "not a finished checkpoint"));
}

TEST(Reader, UnknownVersions) {
  TempDir dir;
  dir.write("inventory.img", inventory_file(kImageVersion));
  ASSERT_OK(Reader::open(dir.fd()));
  dir.write("inventory.img", inventory_file(3));
  EXPECT_TRUE(fails_with(Reader::open(dir.fd()), Code::kImageVersion, "version 3"));
}

class ManifestTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(write_small(dir_.fd()));
    manifest_ = *Reader::open(dir_.fd())->manifest();
  }
  Result<Reader> open_with_manifest() {
    manifest_.set_self_crc32c(manifest_sum(manifest_));
    dir_.write("stasis-manifest.img", head_bytes(kind_info(Kind::kManifest)) + framed(manifest_));
    return Reader::open(dir_.fd());
  }
  TempDir dir_;
  pb::manifest_entry manifest_;
};

TEST_F(ManifestTest, AnotherArchitecture) {
  manifest_.set_arch("riscv64");
  EXPECT_TRUE(fails_with(open_with_manifest(), Code::kImageArch, "riscv64"));
}

TEST_F(ManifestTest, AnotherPageSize) {
  manifest_.set_page_size(65536);
  EXPECT_TRUE(fails_with(open_with_manifest(), Code::kImageArch, "65536"));
}

TEST_F(ManifestTest, ANewerFormat) {
  manifest_.set_format_version(2);
  EXPECT_TRUE(fails_with(open_with_manifest(), Code::kImageVersion, "2"));
}

TEST_F(ManifestTest, NamesThatLeaveTheDirectory) {
  for (const auto& name : {"../inventory.img", "/etc/passwd", "..", ""}) {
    const auto saved = manifest_;
    manifest_.add_files()->CopyFrom(manifest_.files(0));
    manifest_.mutable_files(manifest_.files_size() - 1)->set_name(name);
    EXPECT_TRUE(fails_with(open_with_manifest(), Code::kImageCorrupt, "the manifest lists")) << name;
    manifest_ = saved;
  }
}

TEST_F(ManifestTest, AFileListedTwice) {
  manifest_.add_files()->CopyFrom(manifest_.files(0));
  EXPECT_TRUE(fails_with(open_with_manifest(), Code::kImageCorrupt, "the manifest lists"));
}

TEST_F(ManifestTest, FilesItDoesNotListAreNotRead) {
  dir_.write("core-1.img", head_bytes(kind_info(Kind::kCore)));
  auto reader = Reader::open(dir_.fd());
  ASSERT_OK(reader);
  EXPECT_FALSE(reader->exists("core-1.img"));
  EXPECT_TRUE(fails_with(reader->records(Kind::kCore, "core-1.img"), Code::kImageMissing, "core-1.img"));
  EXPECT_TRUE(fails_with(reader->open_raw("core-1.img"), Code::kImageMissing, "core-1.img"));
}

TEST_F(ManifestTest, AnEmptyListIsDamage) {
  manifest_.clear_files();
  EXPECT_TRUE(fails_with(open_with_manifest(), Code::kImageCorrupt, "does not list inventory.img"));
}

TEST(RecordReader, WrongMagic) {
  TempDir dir;
  dir.write("core-1.img", head_bytes(kind_info(Kind::kMm)));
  EXPECT_TRUE(fails_with(RecordReader::open(dir.fd(), "core-1.img", Kind::kCore), Code::kImageCorrupt, "magic of MM"));
  dir.write("core-1.img", le32(kCommonMagic) + le32(0x12345678));
  EXPECT_TRUE(fails_with(RecordReader::open(dir.fd(), "core-1.img", Kind::kCore), Code::kImageCorrupt, "0x12345678"));
  dir.write("core-1.img", le32(kServiceMagic) + le32(kind_info(Kind::kCore).magic));
  EXPECT_TRUE(fails_with(RecordReader::open(dir.fd(), "core-1.img", Kind::kCore), Code::kImageCorrupt, "first number"));
  dir.write("core-1.img", le32(kind_info(Kind::kCore).magic) + le32(0));
  EXPECT_TRUE(fails_with(RecordReader::open(dir.fd(), "core-1.img", Kind::kCore), Code::kImageCorrupt, "first number"));
}

TEST(RecordReader, AbsurdLengths) {
  TempDir dir;
  const std::string head = head_bytes(kind_info(Kind::kPstree));
  for (const uint32_t size : {5u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
    dir.write("pstree.img", head + le32(size) + "abcd");
    auto file = RecordReader::open(dir.fd(), "pstree.img", Kind::kPstree);
    ASSERT_OK(file);
    pb::pstree_entry entry;
    EXPECT_TRUE(fails_with(file->next(entry), Code::kImageCorrupt, "pstree.img")) << size;
  }
  // A sparse file that really is that long must not be read into memory either.
  dir.write("pstree.img", head + le32(kMaxRecord + 1));
  ASSERT_EQ(::truncate((dir.path() + "/pstree.img").c_str(), off_t{1} << 33), 0);
  auto file = RecordReader::open(dir.fd(), "pstree.img", Kind::kPstree);
  ASSERT_OK(file);
  pb::pstree_entry entry;
  EXPECT_TRUE(fails_with(file->next(entry), Code::kImageCorrupt, "a record of"));
  EXPECT_TRUE(fails_with(file->payload(kMaxRecord + 1), Code::kImageCorrupt, "a payload of"));
  EXPECT_TRUE(fails_with(file->skip(uint64_t{1} << 63), Code::kImageCorrupt, "truncated"));
}

TEST(RecordReader, MissingRequiredFieldsAreNamedWithTheOffset) {
  TempDir dir;
  dir.write("pstree.img", head_bytes(kind_info(Kind::kPstree)) + le32(2) + "\x08\x01");
  auto file = RecordReader::open(dir.fd(), "pstree.img", Kind::kPstree);
  ASSERT_OK(file);
  pb::pstree_entry entry;
  const auto result = file->next(entry);
  EXPECT_TRUE(fails_with(result, Code::kImageCorrupt, "lacks ppid, pgid, sid"));
  EXPECT_TRUE(fails_with(result, Code::kImageCorrupt, "offset 8"));
}

TEST(RecordReader, OnlyTheKindsOwnMessage) {
  TempDir dir;
  dir.write("pstree.img", head_bytes(kind_info(Kind::kPstree)));
  auto file = RecordReader::open(dir.fd(), "pstree.img", Kind::kPstree);
  ASSERT_OK(file);
  pb::core_entry core;
  EXPECT_TRUE(fails_with(file->next(core), Code::kInternal, "core_entry"));
}

TEST(RecordReader, OnlyRegularFiles) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir.path() + "/core-1.img").c_str(), 0600), 0);
  EXPECT_TRUE(fails_with(open_image(dir.fd(), "core-1.img"), Code::kImageCorrupt, "not a regular file"));
  ASSERT_EQ(::symlink("/etc/passwd", (dir.path() + "/core-2.img").c_str()), 0);
  EXPECT_TRUE(fails_with(open_image(dir.fd(), "core-2.img"), Code::kImageCorrupt, "symbolic link"));
  EXPECT_TRUE(fails_with(open_image(dir.fd(), "../etc/passwd"), Code::kImageCorrupt, "not an image file name"));
}

TEST(Reader, ReadWantsExactlyOneRecord) {
  TempDir dir;
  dir.write("inventory.img", inventory_file());
  dir.write("fs-1.img", head_bytes(kind_info(Kind::kFs)));
  auto reader = Reader::open(dir.fd());
  ASSERT_OK(reader);
  EXPECT_TRUE(fails_with(reader->read<pb::fs_entry>(Kind::kFs, "fs-1.img"), Code::kImageCorrupt, "no record"));
  pb::fs_entry entry;
  entry.set_cwd_id(1);
  entry.set_root_id(2);
  dir.write("fs-1.img", head_bytes(kind_info(Kind::kFs)) + framed(entry) + framed(entry));
  EXPECT_TRUE(fails_with(reader->read<pb::fs_entry>(Kind::kFs, "fs-1.img"), Code::kImageCorrupt, "more than one"));
  dir.write("fs-1.img", head_bytes(kind_info(Kind::kFs)) + framed(entry));
  auto read = reader->read<pb::fs_entry>(Kind::kFs, "fs-1.img");
  ASSERT_OK(read);
  EXPECT_EQ(read->root_id(), 2u);
}

}  // namespace
}  // namespace stasis::image
