// SPDX-License-Identifier: Apache-2.0
#include "engine/image/writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include "engine/image/crc32c.h"
#include "engine/image/reader.h"
#include "proto/core.pb.h"
#include "proto/inventory.pb.h"
#include "tests/unit/engine/image/temp_dir.h"

namespace stasis::image {
namespace {

using ::testing::ElementsAre;

pb::inventory_entry inventory() {
  pb::inventory_entry entry;
  entry.set_img_version(kImageVersion);
  return entry;
}

pb::pstree_entry task(uint32_t pid) {
  pb::pstree_entry entry;
  entry.set_pid(pid);
  entry.set_ppid(0);
  entry.set_pgid(pid);
  entry.set_sid(pid);
  return entry;
}

Result<void> write_checkpoint(int dirfd, bool replace, uint32_t pid) {
  Writer writer = TRY(Writer::create(dirfd, replace));
  TRY(writer.put_all(Kind::kPstree, "pstree.img", std::vector{task(pid), task(pid + 1)}));
  TRY(writer.put(Kind::kInventory, "inventory.img", inventory()));
  return writer.commit(false);
}

TEST(Writer, NothingIsSeenBeforeCommit) {
  TempDir dir;
  auto writer = Writer::create(dir.fd(), false);
  ASSERT_OK(writer);
  ASSERT_OK(writer->put(Kind::kInventory, "inventory.img", inventory()));
  ASSERT_EQ(dir.names().size(), 1u);
  EXPECT_THAT(dir.names()[0], ::testing::StartsWith(".stasis-"));
  ASSERT_OK(writer->commit());
  EXPECT_THAT(dir.names(), ElementsAre("inventory.img", "stasis-manifest.img"));
}

TEST(Writer, WithoutCommitTheDirectoryIsAsBefore) {
  TempDir dir;
  dir.write("descriptors.json", "[]");
  {
    auto writer = Writer::create(dir.fd(), false);
    ASSERT_OK(writer);
    ASSERT_OK(writer->put(Kind::kInventory, "inventory.img", inventory()));
  }
  EXPECT_THAT(dir.names(), ElementsAre("descriptors.json"));
}

TEST(Writer, ManifestListsSizesAndChecksums) {
  TempDir dir;
  ASSERT_OK(write_checkpoint(dir.fd(), false, 5));
  auto reader = Reader::open(dir.fd());
  ASSERT_OK(reader);
  ASSERT_NE(reader->manifest(), nullptr);
  ASSERT_EQ(reader->manifest()->files_size(), 2);
  for (const auto& file : reader->manifest()->files()) {
    const std::string bytes = dir.content(file.name());
    EXPECT_EQ(file.size(), bytes.size());
    EXPECT_EQ(file.crc32c(), crc32c(0, bytes.data(), bytes.size()));
  }
}

TEST(Writer, ExternalDataIsSummedByReadingBack) {
  TempDir dir;
  auto writer = Writer::create(dir.fd(), false);
  ASSERT_OK(writer);
  auto raw = writer->open_raw("pages-1.img");
  ASSERT_OK(raw);
  const std::string late(5000, 'x'), early(4096, 'y');
  ASSERT_EQ(::pwrite(raw->fd(), late.data(), late.size(), 4096), 5000);
  ASSERT_EQ(::pwrite(raw->fd(), early.data(), early.size(), 0), 4096);
  ASSERT_OK(raw->finish_external());
  EXPECT_EQ(raw->size(), 9096u);
  ASSERT_OK(raw->close());
  ASSERT_OK(writer->put(Kind::kInventory, "inventory.img", inventory()));
  ASSERT_OK(writer->commit(false));
  auto reader = Reader::open(dir.fd());
  ASSERT_OK(reader);
  EXPECT_TRUE(reader->exists("pages-1.img"));
}

TEST(Writer, RefusesANotEmptyDirectory) {
  TempDir dir;
  dir.write("core-1.img", "old");
  EXPECT_TRUE(fails_with(Writer::create(dir.fd(), false), Code::kImageDir, "core-1.img"));
  EXPECT_THAT(dir.names(), ElementsAre("core-1.img"));
}

TEST(Writer, RefusesWhatIsNotADirectory) {
  TempDir dir;
  dir.write("file", "");
  const Fd file(::open((dir.path() + "/file").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_TRUE(fails_with(Writer::create(file.get(), false), Code::kImageDir, "not a directory"));
  EXPECT_TRUE(fails_with(Writer::create(-1, false), Code::kImageDir, "image directory"));
}

TEST(Writer, RefusesASecondWriter) {
  TempDir dir;
  auto first = Writer::create(dir.fd(), false);
  ASSERT_OK(first);
  EXPECT_TRUE(fails_with(Writer::create(dir.fd(), false), Code::kImageDir, "another engine"));
  { const auto dropped = std::move(first); }
  EXPECT_TRUE(Writer::create(dir.fd(), false));
}

TEST(Writer, RemovesLeftoversOfAKilledEngine) {
  TempDir dir;
  std::filesystem::create_directory(dir.path() + "/.stasis-dead");
  dir.write(".stasis-dead/core-1.img", "half");
  ASSERT_OK(write_checkpoint(dir.fd(), false, 1));
  EXPECT_THAT(dir.names(), ElementsAre("inventory.img", "pstree.img", "stasis-manifest.img"));
}

TEST(Writer, ReplaceRemovesThePreviousCheckpointAndNothingElse) {
  TempDir dir;
  ASSERT_OK(write_checkpoint(dir.fd(), false, 5));
  dir.write("core-99.img", "of an older one");
  dir.write("descriptors.json", "[]");
  dir.write("dump.log", "log");
  EXPECT_FALSE(write_checkpoint(dir.fd(), false, 6));
  ASSERT_OK(write_checkpoint(dir.fd(), true, 6));
  EXPECT_THAT(dir.names(),
              ElementsAre("descriptors.json", "dump.log", "inventory.img", "pstree.img", "stasis-manifest.img"));
  auto reader = Reader::open(dir.fd());
  ASSERT_OK(reader);
  auto tasks = reader->read_all<pb::pstree_entry>(Kind::kPstree, "pstree.img");
  ASSERT_OK(tasks);
  EXPECT_EQ(tasks->at(0).pid(), 6u);
}

TEST(Writer, AFailedReplaceKeepsThePreviousCheckpoint) {
  TempDir dir;
  ASSERT_OK(write_checkpoint(dir.fd(), false, 5));
  {
    auto writer = Writer::create(dir.fd(), true);
    ASSERT_OK(writer);
    ASSERT_OK(writer->put_all(Kind::kPstree, "pstree.img", std::vector{task(9)}));
    EXPECT_TRUE(fails_with(writer->commit(), Code::kInternal, "inventory.img"));
  }
  auto reader = Reader::open(dir.fd());
  ASSERT_OK(reader);
  EXPECT_EQ(reader->read_all<pb::pstree_entry>(Kind::kPstree, "pstree.img")->at(0).pid(), 5u);
}

TEST(Writer, AFileThatAppearedMeanwhileIsNotOverwritten) {
  TempDir dir;
  auto writer = Writer::create(dir.fd(), false);
  ASSERT_OK(writer);
  auto first = writer->open_raw("a.img");
  ASSERT_OK(first);
  ASSERT_OK(first->close());
  ASSERT_OK(writer->put_all(Kind::kPstree, "pstree.img", std::vector{task(1)}));
  ASSERT_OK(writer->put(Kind::kInventory, "inventory.img", inventory()));
  dir.write("pstree.img", "somebody else's");
  EXPECT_TRUE(fails_with(writer->commit(false), Code::kImageDir, "pstree.img"));
  { const auto dropped = std::move(writer); }
  EXPECT_EQ(dir.content("pstree.img"), "somebody else's");
  EXPECT_THAT(dir.names(), ElementsAre("pstree.img"));
}

TEST(Writer, RefusesBadNamesDuplicatesAndOpenFiles) {
  TempDir dir;
  auto writer = Writer::create(dir.fd(), false);
  ASSERT_OK(writer);
  EXPECT_TRUE(fails_with(writer->open_raw("../evil.img"), Code::kInternal, "evil"));
  auto raw = writer->open_raw("pages-1.img");
  ASSERT_OK(raw);
  EXPECT_FALSE(writer->open_raw("pages-1.img"));
  ASSERT_OK(writer->put(Kind::kInventory, "inventory.img", inventory()));
  EXPECT_TRUE(fails_with(writer->commit(), Code::kInternal, "not closed"));
}

TEST(Writer, RefusesARecordThatIsNotComplete) {
  TempDir dir;
  auto writer = Writer::create(dir.fd(), false);
  ASSERT_OK(writer);
  EXPECT_TRUE(fails_with(writer->put(Kind::kInventory, "inventory.img", pb::inventory_entry()), Code::kInternal,
                         "img_version"));
}

// A limit on file size stands in for a full disk: write(2) fails in the middle.
TEST(Writer, AFullDiskLeavesNothingBehind) {
  TempDir dir;
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  rlimit small = old;
  small.rlim_cur = 10000;
  {
    auto writer = Writer::create(dir.fd(), false);
    ASSERT_OK(writer);
    auto raw = writer->open_raw("pages-1.img");
    ASSERT_OK(raw);
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    const std::string page(4096, 'p');
    Result<void> result;
    for (int i = 0; i < 4 && result; ++i) result = raw->append(page.data(), page.size());
    EXPECT_TRUE(fails_with(result, Code::kSystem, "pages-1.img"));
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  ::signal(SIGXFSZ, SIG_DFL);
  EXPECT_TRUE(dir.names().empty());
}

}  // namespace
}  // namespace stasis::image
