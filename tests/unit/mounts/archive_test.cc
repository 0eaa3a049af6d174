// SPDX-License-Identifier: Apache-2.0
// Round trips in temporary directories, and archives made to do harm.
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "engine/base/io.h"
#include "mounts/content.h"

namespace stasis::mounts {
namespace {

namespace fs = std::filesystem;

class Archive : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "stasis-archive-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    top_ = pattern;
    fs::create_directories(top_ / "in");
    fs::create_directories(top_ / "out");
  }
  void TearDown() override { fs::remove_all(top_); }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(top_ / "in" / name, std::ios::binary) << text;
  }
  std::string read(const std::string& name) {
    std::ifstream file(top_ / "out" / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  struct stat info(const std::string& name) {
    struct stat st {};
    EXPECT_EQ(lstat((top_ / "out" / name).c_str(), &st), 0) << name;
    return st;
  }
  Fd image(int flags) {
    auto fd = open_at(AT_FDCWD, top_ / "image", flags, 0600);
    EXPECT_TRUE(fd);
    return *std::move(fd);
  }
  Result<void> pack() {
    Fd out = image(O_RDWR | O_CREAT | O_TRUNC);
    Fd dir = TRY(open_at(AT_FDCWD, top_ / "in", O_RDONLY | O_DIRECTORY));
    return write_archive(dir.get(), out.get());
  }
  Result<void> unpack() {
    Fd in = image(O_RDONLY);
    Fd dir = TRY(open_at(AT_FDCWD, top_ / "out", O_RDONLY | O_DIRECTORY));
    return extract_archive(in.get(), dir.get());
  }
  Result<void> round_trip() {
    TRY(pack());
    return unpack();
  }
  // An archive of entries made by `fill`; data is written for each regular file with a size.
  Result<void> unpack_made(
      const std::function<void(const std::function<void(const std::function<void(archive_entry*)>&)>&)>& fill) {
    Fd out = image(O_RDWR | O_CREAT | O_TRUNC);
    archive* a = archive_write_new();
    archive_write_set_format_pax(a);
    archive_write_add_filter_gzip(a);
    archive_write_open_fd(a, out.get());
    fill([&](const std::function<void(archive_entry*)>& edit) {
      archive_entry* e = archive_entry_new();
      archive_entry_set_mode(e, S_IFREG | 0644);
      archive_entry_set_uid(e, getuid());
      archive_entry_set_gid(e, getgid());
      archive_entry_set_size(e, 0);
      edit(e);
      EXPECT_GE(archive_write_header(a, e), ARCHIVE_WARN) << archive_error_string(a);
      archive_entry_free(e);
    });
    archive_write_close(a);
    archive_write_free(a);
    return unpack();
  }

  fs::path top_;
};

TEST_F(Archive, KeepsFilesDirectoriesLinksModesAndTimes) {
  fs::create_directories(top_ / "in/d/e");
  write("d/f", "hello");
  fs::permissions(top_ / "in/d/f", fs::perms(04751));
  fs::create_symlink("../nowhere", top_ / "in/d/l");
  fs::create_hard_link(top_ / "in/d/f", top_ / "in/g");
  ASSERT_EQ(mkfifo((top_ / "in/fifo").c_str(), 0620), 0);
  fs::permissions(top_ / "in", fs::perms(01777));
  timespec times[2] = {{1000, 5}, {2000, 123456789}};
  ASSERT_EQ(utimensat(AT_FDCWD, (top_ / "in/d/f").c_str(), times, 0), 0);
  ASSERT_EQ(utimensat(AT_FDCWD, (top_ / "in/d").c_str(), times, 0), 0);
  auto ok = round_trip();
  ASSERT_TRUE(ok) << ok.error().line();
  EXPECT_EQ(read("d/f"), "hello");
  EXPECT_EQ(info("d/f").st_mode, mode_t(S_IFREG | 04751));
  EXPECT_EQ(info("d/f").st_mtim.tv_sec, 2000);
  EXPECT_EQ(info("d/f").st_mtim.tv_nsec, 123456789);
  EXPECT_EQ(info("d").st_mtim.tv_sec, 2000);
  EXPECT_EQ(info("d/f").st_ino, info("g").st_ino);
  EXPECT_EQ(fs::read_symlink(top_ / "out/d/l"), "../nowhere");
  EXPECT_TRUE(S_ISDIR(info("d/e").st_mode));
  EXPECT_TRUE(S_ISFIFO(info("fifo").st_mode));
  EXPECT_EQ(info("").st_mode & 07777, mode_t(01777));
}

TEST_F(Archive, KeepsHoles) {
  write("tail", "x");
  fs::resize_file(top_ / "in/tail", 64 << 20);
  write("hole", "");
  fs::resize_file(top_ / "in/hole", 1ull << 40);
  {
    std::ofstream file(top_ / "in/middle", std::ios::binary);
    file.seekp(32 << 20);
    file << "data";
  }
  fs::resize_file(top_ / "in/middle", 64 << 20);
  auto ok = round_trip();
  ASSERT_TRUE(ok) << ok.error().line();
  EXPECT_EQ(info("hole").st_size, off_t(1) << 40);
  EXPECT_EQ(info("hole").st_blocks, 0);
  EXPECT_EQ(info("tail").st_size, 64 << 20);
  EXPECT_LT(info("tail").st_blocks, 64);
  EXPECT_EQ(info("middle").st_size, 64 << 20);
  EXPECT_LT(info("middle").st_blocks, 64);
  EXPECT_EQ(read("middle").substr(32 << 20, 5), std::string("data\0", 5));
  EXPECT_LT(fs::file_size(top_ / "image"), 1u << 20);
}

TEST_F(Archive, KeepsNamesThatAreOnlyBytes) {
  std::string long_name(255, 'n'), utf8 = "gr\xc3\xbc\xc3\x9f", latin = "gr\xfc\xdf\n'\"\\";
  for (auto& name : {long_name, utf8, latin}) write(name, name);
  std::string deep;
  for (int i = 0; i < 12; ++i) deep += std::string(200, char('a' + i)) + "/";
  fs::create_directories(top_ / "in" / deep);
  write(deep + "end", "deep");
  fs::create_symlink(latin, top_ / "in/link");
  fs::create_hard_link(top_ / "in" / latin, top_ / "in/zz");
  auto ok = round_trip();
  ASSERT_TRUE(ok) << ok.error().line();
  for (auto& name : {long_name, utf8, latin}) EXPECT_EQ(read(name), name);
  EXPECT_EQ(read(deep + "end"), "deep");
  EXPECT_EQ(fs::read_symlink(top_ / "out/link").string(), latin);
  EXPECT_EQ(read("zz"), latin);
}

TEST_F(Archive, KeepsExtendedAttributes) {
  write("f", "x");
  if (setxattr((top_ / "in/f").c_str(), "user.note", "a\0b", 3, 0) != 0)
    GTEST_SKIP() << "no user.* attributes in the temporary directory";
  auto ok = round_trip();
  ASSERT_TRUE(ok) << ok.error().line();
  char value[16];
  ASSERT_EQ(getxattr((top_ / "out/f").c_str(), "user.note", value, sizeof value), 3);
  EXPECT_EQ(std::string(value, 3), std::string("a\0b", 3));
}

TEST_F(Archive, KeepsSocketNodes) {
  ASSERT_EQ(mknod((top_ / "in/sock").c_str(), S_IFSOCK | 0640, 0), 0);
  auto ok = round_trip();
  ASSERT_TRUE(ok) << ok.error().line();
  EXPECT_EQ(info("sock").st_mode, mode_t(S_IFSOCK | 0640));
}

TEST_F(Archive, EmptyTree) {
  auto ok = round_trip();
  ASSERT_TRUE(ok) << ok.error().line();
  EXPECT_TRUE(fs::is_empty(top_ / "out"));
  Fd dir = *open_at(AT_FDCWD, top_ / "in", O_RDONLY | O_DIRECTORY);
  EXPECT_TRUE(check_empty(dir.get(), "/m"));
  write("f", "x");
  auto full = check_empty(dir.get(), "/m");
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code(), Code::kUnsupportedMount);
}

TEST_F(Archive, ReadsWhatGnuTarWrote) {
  write("f", "plain");
  fs::create_directories(top_ / "in/d");
  std::string command =
      "tar -C " + (top_ / "in").string() + " --sparse --numeric-owner -czf " + (top_ / "image").string() + " .";
  ASSERT_EQ(system(command.c_str()), 0);
  auto ok = unpack();
  ASSERT_TRUE(ok) << ok.error().line();
  EXPECT_EQ(read("f"), "plain");
}

TEST_F(Archive, GnuTarReadsWhatWeWrote) {
  write("f", "plain");
  ASSERT_TRUE(pack());
  std::string command =
      "tar -C " + (top_ / "out").string() + " -xzf " + (top_ / "image").string() + " 2>" + (top_ / "err").string();
  ASSERT_EQ(system(command.c_str()), 0);
  EXPECT_EQ(read("f"), "plain");
  EXPECT_EQ(fs::file_size(top_ / "err"), 0u);
}

TEST_F(Archive, RefusesNamesThatLeadOutside) {
  for (const char* name : {"/etc/stasis-evil", "../evil", "a/../../evil", ".."}) {
    auto bad =
        unpack_made([&](const auto& add) { add([&](archive_entry* e) { archive_entry_copy_pathname(e, name); }); });
    ASSERT_FALSE(bad) << name;
    EXPECT_EQ(bad.error().code(), Code::kImageCorrupt);
  }
  EXPECT_FALSE(fs::exists(top_ / "evil"));
}

TEST_F(Archive, NeverFollowsLinks) {
  fs::create_directories(top_ / "victim");
  auto bad = unpack_made([&](const auto& add) {
    add([&](archive_entry* e) {
      archive_entry_copy_pathname(e, "l");
      archive_entry_set_mode(e, S_IFLNK | 0777);
      archive_entry_copy_symlink(e, (top_ / "victim").c_str());
    });
    add([](archive_entry* e) { archive_entry_copy_pathname(e, "l/evil"); });
  });
  EXPECT_FALSE(bad);
  EXPECT_TRUE(fs::is_empty(top_ / "victim"));
}

TEST_F(Archive, NeverOpensWhatExists) {
  std::ofstream(top_ / "victim") << "safe";
  auto bad = unpack_made([&](const auto& add) {
    add([&](archive_entry* e) {
      archive_entry_copy_pathname(e, "f");
      archive_entry_set_mode(e, S_IFLNK | 0777);
      archive_entry_copy_symlink(e, (top_ / "victim").c_str());
    });
    add([](archive_entry* e) { archive_entry_copy_pathname(e, "f"); });
  });
  EXPECT_FALSE(bad);
  EXPECT_EQ(fs::file_size(top_ / "victim"), 4u);
}

TEST_F(Archive, HardLinksStayInside) {
  std::ofstream(top_ / "victim") << "safe";
  for (std::string to :
       {(top_ / "victim").string(), std::string("../victim"), std::string("l/victim"), std::string(".")}) {
    auto bad = unpack_made([&](const auto& add) {
      if (!fs::exists(fs::symlink_status(top_ / "out/l")))
        add([&](archive_entry* e) {
          archive_entry_copy_pathname(e, "l");
          archive_entry_set_mode(e, S_IFLNK | 0777);
          archive_entry_copy_symlink(e, "..");
        });
      add([&](archive_entry* e) {
        archive_entry_copy_pathname(e, "h");
        archive_entry_copy_hardlink(e, to.c_str());
      });
    });
    EXPECT_FALSE(bad) << to;
    EXPECT_FALSE(fs::exists(top_ / "out/h")) << to;
  }
}

TEST_F(Archive, RefusesDamagedImages) {
  for (int i = 0; i < 200; ++i) write(cat("f", i), std::string(1000, char(i)));
  ASSERT_TRUE(pack());
  auto size = fs::file_size(top_ / "image");
  fs::resize_file(top_ / "image", size / 2);
  auto bad = unpack();
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code(), Code::kImageCorrupt);
  fs::resize_file(top_ / "image", 0);
  EXPECT_FALSE(unpack());
  std::ofstream(top_ / "image") << "this is not an archive at all";
  EXPECT_FALSE(unpack());
}

TEST_F(Archive, RefusesTreesTooDeepToWalk) {
  fs::path deep = top_ / "in";
  for (int i = 0; i < 210; ++i) deep /= "d";
  fs::create_directories(deep);
  auto bad = pack();
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code(), Code::kUnsupportedMount);
}

}  // namespace
}  // namespace stasis::mounts
