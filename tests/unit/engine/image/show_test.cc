// SPDX-License-Identifier: Apache-2.0
#include "engine/image/show.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/image/stats.h"
#include "engine/image/writer.h"
#include "proto/core.pb.h"
#include "proto/files.pb.h"
#include "proto/mm.pb.h"
#include "proto/namespaces.pb.h"
#include "proto/task.pb.h"
#include "tests/unit/engine/image/temp_dir.h"

namespace stasis::image {
namespace {

// A record by its bytes, for what the Writer does not write.
std::string framed(const google::protobuf::Message& message) {
  const std::string bytes = message.SerializeAsString();
  std::string out;
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(bytes.size() >> shift & 0xff);
  return out + bytes;
}

pb::core_entry core() {
  pb::core_entry entry;
  entry.set_mtype(pb::core_entry::X86_64);
  auto* tc = entry.mutable_tc();
  tc->set_task_state(1);
  tc->set_exit_code(0);
  tc->set_personality(0);
  tc->set_flags(0x400000);
  tc->set_blk_sigset(0xffffffffffffffff);
  tc->set_comm("a \"name\"\n\xff");
  tc->set_child_subreaper(true);
  auto* rlimits = tc->mutable_rlimits();
  for (uint64_t i = 0; i < 2; ++i) {
    auto* limit = rlimits->add_rlimits();
    limit->set_cur(i);
    limit->set_max(i + 10);
  }
  return entry;
}

TEST(Show, WholeMessage) {
  TempDir dir;
  dir.write("core-1.img", head_bytes(kind_info(Kind::kCore)) + framed(core()));
  auto json = to_json(dir.fd(), "core-1.img");
  ASSERT_OK(json);
  EXPECT_EQ(*json, R"({
  "magic": "CORE",
  "entries": [
    {
      "mtype": "X86_64",
      "tc": {
        "task_state": 1,
        "exit_code": 0,
        "personality": 0,
        "flags": 4194304,
        "blk_sigset": 18446744073709551615,
        "comm": "a \"name\"\n\ufffd",
        "rlimits": {
          "rlimits": [
            {
              "cur": 0,
              "max": 10
            },
            {
              "cur": 1,
              "max": 11
            }
          ]
        },
        "child_subreaper": true
      }
    }
  ]
}
)");
}

TEST(Show, SelectedFields) {
  TempDir dir;
  dir.write("core-1.img", head_bytes(kind_info(Kind::kCore)) + framed(core()));
  auto json = to_json(dir.fd(), "core-1.img", {"tc.exit_code", "tc.rlimits.rlimits.max"});
  ASSERT_OK(json);
  EXPECT_THAT(*json, ::testing::HasSubstr("\"exit_code\": 0"));
  EXPECT_THAT(*json, ::testing::HasSubstr("\"max\": 11"));
  for (const auto& absent : {"comm", "cur", "mtype"}) EXPECT_THAT(*json, ::testing::Not(::testing::HasSubstr(absent)));
}

TEST(Show, UnknownFieldsAreAnError) {
  TempDir dir;
  dir.write("core-1.img", head_bytes(kind_info(Kind::kCore)));
  for (const auto& path : {"tc.nothing", "", "tc.comm.more", "tc."})
    EXPECT_TRUE(fails_with(to_json(dir.fd(), "core-1.img", {path}), Code::kUsage, "has no field")) << path;
}

TEST(Show, EmptyImagesAndNumberArrays) {
  TempDir dir;
  dir.write("pstree.img", head_bytes(kind_info(Kind::kPstree)));
  EXPECT_EQ(*to_json(dir.fd(), "pstree.img"), "{\n  \"magic\": \"PSTREE\",\n  \"entries\": []\n}\n");
  pb::pstree_entry entry;
  entry.set_pid(1);
  entry.set_ppid(0);
  entry.set_pgid(1);
  entry.set_sid(1);
  entry.add_threads(1);
  entry.add_threads(4);
  dir.write("pstree.img", head_bytes(kind_info(Kind::kPstree)) + framed(entry));
  EXPECT_THAT(*to_json(dir.fd(), "pstree.img"), ::testing::HasSubstr("\"threads\": [1, 4]"));
}

TEST(Show, BytesAreBase64AndMacroNamesAreTheInterfaces) {
  TempDir dir;
  const std::pair<std::string, std::string> cases[] = {
      {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
      {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {std::string("\xff\0", 2), "/wA="}};
  for (const auto& [bytes, text] : cases) {
    pb::seccomp_entry entry;
    entry.add_seccomp_filters()->set_filter(bytes);
    dir.write("seccomp.img", head_bytes(kind_info(Kind::kSeccomp)) + framed(entry));
    EXPECT_THAT(*to_json(dir.fd(), "seccomp.img"), ::testing::HasSubstr("\"filter\": \"" + text + "\""));
  }
  dir.write("signalfd.img", head_bytes(kind_info(Kind::kSignalfd)));
  ASSERT_OK(to_json(dir.fd(), "signalfd.img", {"sigmask"}));
  EXPECT_TRUE(fails_with(to_json(dir.fd(), "signalfd.img", {"signal_mask"}), Code::kUsage, "signal_mask"));
}

TEST(Show, PagemapHasAHeadAndEntries) {
  TempDir dir;
  pb::pagemap_head head;
  head.set_pages_id(3);
  pb::pagemap_entry entry;
  entry.set_vaddr(4096);
  entry.set_nr_pages(1);
  dir.write("pagemap-1.img", head_bytes(kind_info(Kind::kPagemap)) + framed(head) + framed(entry));
  auto json = to_json(dir.fd(), "pagemap-1.img");
  ASSERT_OK(json);
  EXPECT_THAT(*json, ::testing::HasSubstr("\"pages_id\": 3"));
  EXPECT_THAT(*json, ::testing::HasSubstr("\"vaddr\": 4096"));
  ASSERT_OK(to_json(dir.fd(), "pagemap-1.img", {"vaddr"}));
}

TEST(Show, PayloadsAreCountedAndChecked) {
  TempDir dir;
  pb::pipe_data_entry data;
  data.set_pipe_id(1);
  data.set_bytes(5);
  const std::string image = head_bytes(kind_info(Kind::kPipesData)) + framed(data) + "hello" + framed(data) + "world";
  dir.write("pipes-data.img", image);
  auto json = to_json(dir.fd(), "pipes-data.img");
  ASSERT_OK(json);
  EXPECT_THAT(*json, ::testing::HasSubstr("\"extra_bytes\": 5"));
  dir.write("pipes-data.img", image.substr(0, image.size() - 1));
  EXPECT_TRUE(fails_with(to_json(dir.fd(), "pipes-data.img"), Code::kImageCorrupt, "pipes-data.img"));
}

TEST(Show, GhostFilesWholeAndInChunks) {
  TempDir dir;
  pb::ghost_file_entry ghost;
  ghost.set_uid(0);
  ghost.set_gid(0);
  ghost.set_mode(0100644);
  const std::string head = head_bytes(kind_info(Kind::kGhostFile));
  dir.write("ghost-file-1.img", head + framed(ghost) + "contents");
  EXPECT_THAT(*to_json(dir.fd(), "ghost-file-1.img"), ::testing::HasSubstr("\"extra_bytes\": 8"));
  ghost.set_chunks(true);
  pb::ghost_chunk_entry chunk;
  chunk.set_len(3);
  chunk.set_off(4096);
  dir.write("ghost-file-1.img", head + framed(ghost) + framed(chunk) + "abc" + framed(chunk) + "def");
  auto json = to_json(dir.fd(), "ghost-file-1.img");
  ASSERT_OK(json);
  EXPECT_THAT(*json, ::testing::HasSubstr("\"extra_bytes\": 3"));
  chunk.set_len(~uint64_t{0});
  dir.write("ghost-file-1.img", head + framed(ghost) + framed(chunk) + "abc");
  EXPECT_TRUE(fails_with(to_json(dir.fd(), "ghost-file-1.img"), Code::kImageCorrupt, "truncated"));
}

TEST(Show, MessageQueues) {
  TempDir dir;
  pb::ipc_msg_entry queue;
  auto* desc = queue.mutable_desc();
  desc->set_key(1);
  desc->set_uid(0);
  desc->set_gid(0);
  desc->set_cuid(0);
  desc->set_cgid(0);
  desc->set_mode(0600);
  desc->set_id(0);
  queue.set_qbytes(16384);
  queue.set_qnum(1);
  pb::ipc_msg message;
  message.set_mtype(7);
  message.set_msize(3);
  const std::string image = head_bytes(kind_info(Kind::kIpcMsg)) + framed(queue) + framed(message);
  dir.write("ipcns-msg-1.img", image + "abc" + std::string(5, '\0'));
  ASSERT_OK(to_json(dir.fd(), "ipcns-msg-1.img"));
  dir.write("ipcns-msg-1.img", image + "abc");
  EXPECT_TRUE(fails_with(to_json(dir.fd(), "ipcns-msg-1.img"), Code::kImageCorrupt, "truncated"));
  dir.write("ipcns-msg-1.img", head_bytes(kind_info(Kind::kIpcMsg)) + framed(queue));
  EXPECT_TRUE(fails_with(to_json(dir.fd(), "ipcns-msg-1.img"), Code::kImageCorrupt, "missing"));
}

TEST(Show, NamesOfADirectory) {
  TempDir dir;
  dir.write("pages-1.img", std::string(4096, 'p'));
  dir.write("dump.log", "text");
  dir.write("pstree.img", head_bytes(kind_info(Kind::kPstree)));
  dir.write("inventory.img", head_bytes(kind_info(Kind::kInventory)));
  EXPECT_EQ(*image_names(dir.fd()), (std::vector<std::string>{"inventory.img", "pstree.img"}));
  EXPECT_TRUE(fails_with(to_json(dir.fd(), "pages-1.img"), Code::kImageCorrupt, "unknown magic"));
}

TEST(Stats, EveryRequiredFieldIsWritten) {
  TempDir dir;
  dir.write("stats-dump", std::string(1000, 'x'));
  pb::dump_stats_entry dump;
  dump.set_frozen_time(1234);
  dump.set_pages_written(50);
  ASSERT_OK(write_dump_stats(dir.fd(), dump));
  pb::restore_stats_entry restore;
  restore.set_restore_time(99);
  ASSERT_OK(write_restore_stats(dir.fd(), restore));
  auto json = to_json(dir.fd(), "stats-dump");
  ASSERT_OK(json);
  EXPECT_THAT(*json, ::testing::HasSubstr("\"frozen_time\": 1234"));
  EXPECT_THAT(*json, ::testing::HasSubstr("\"pages_lazy\": 0"));
  EXPECT_THAT(*to_json(dir.fd(), "stats-restore"), ::testing::HasSubstr("\"restore_time\": 99"));
}

}  // namespace
}  // namespace stasis::image
