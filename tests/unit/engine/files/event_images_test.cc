// SPDX-License-Identifier: Apache-2.0
// What images may say of event files and terminals, and what not.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "engine/files/kind.h"
#include "proto/inventory.pb.h"
#include "tests/unit/engine/image/temp_dir.h"

namespace stasis::files {
namespace {

class EventImages : public ::testing::Test {
 protected:
  // Whether `file` passes together with what the manifest says of it.
  bool passes(pb::file_entry file, const std::vector<pb::event_extra>& extras = {}) {
    image::TempDir dir;
    file.set_id(7);
    {
      auto writer = image::Writer::create(dir.fd(), false);
      EXPECT_TRUE(writer);
      pb::inventory_entry inventory;
      inventory.set_img_version(image::kImageVersion);
      EXPECT_TRUE(writer->put(image::Kind::kInventory, "inventory.img", inventory));
      for (auto extra : extras) extra.set_file_id(7), writer->add_event_extra(extra);
      EXPECT_TRUE(writer->commit(false));
    }
    const auto images = image::Reader::open(dir.fd());
    EXPECT_TRUE(images);
    pb::file_entry other;
    other.set_id(8), other.set_type(pb::PIPE);
    const auto result = check_file_image(file, {{7, file}, {8, other}}, *images);
    if (!result) {
      EXPECT_EQ(result.error().code(), Code::kImageCorrupt) << result.error().message();
    }
    return result.has_value();
  }
};

TEST_F(EventImages, EachHasItsPart) {
  for (const auto type :
       {pb::EVENTFD, pb::EVENTPOLL, pb::SIGNALFD, pb::TIMERFD, pb::PIDFD, pb::NS, pb::TTY, pb::FANOTIFY, pb::BPFMAP}) {
    pb::file_entry file;
    file.set_type(type);
    EXPECT_FALSE(passes(file)) << pb::fd_types_Name(type);
  }
}

TEST_F(EventImages, Marks) {
  auto good = [] {
    pb::file_entry file;
    file.set_type(pb::FANOTIFY);
    auto& ffy = *file.mutable_ffy();
    ffy.set_faflags(1), ffy.set_evflags(2);
    auto& inode = *ffy.add_mark();
    inode.set_type(pb::INODE), inode.set_mflags(0x40), inode.set_mask(2), inode.set_ignored_mask(0);
    inode.mutable_ie()->mutable_f_handle()->set_path("/a");
    auto& mount = *ffy.add_mark();
    mount.set_type(pb::MOUNT), mount.set_mflags(0), mount.set_mask(0), mount.set_ignored_mask(2);
    mount.mutable_me()->set_path("/");
    return file;
  };
  EXPECT_TRUE(passes(good()));
  const std::function<void(pb::fanotify_file_entry&)> wrong[] = {
      [](auto& f) { f.mutable_mark(0)->set_type(pb::MOUNT); },
      [](auto& f) { f.mutable_mark(0)->set_mask(0); },
      [](auto& f) { f.mutable_mark(0)->set_mflags(1); },
      [](auto& f) { f.mutable_mark(1)->clear_me(); },
  };
  for (size_t i = 0; i < std::size(wrong); ++i) {
    auto file = good();
    wrong[i](*file.mutable_ffy());
    EXPECT_FALSE(passes(file)) << i;
  }
}

TEST_F(EventImages, Maps) {
  auto good = [] {
    pb::file_entry file;
    file.set_type(pb::BPFMAP);
    auto& bpf = *file.mutable_bpf();
    bpf.set_map_type(1), bpf.set_key_size(4), bpf.set_value_size(8), bpf.set_max_entries(5), bpf.set_map_id(3);
    return file;
  };
  EXPECT_TRUE(passes(good()));
  const std::function<void(pb::bpfmap_file_entry&)> wrong[] = {
      [](auto& b) { b.set_key_size(0); },
      [](auto& b) { b.set_key_size(~0u); },
      [](auto& b) { b.set_value_size(~0u); },
      [](auto& b) { b.set_max_entries(0); },
      [](auto& b) { b.set_map_name("a name longer than any"); },
  };
  for (size_t i = 0; i < std::size(wrong); ++i) {
    auto file = good();
    wrong[i](*file.mutable_bpf());
    EXPECT_FALSE(passes(file)) << i;
  }
}

TEST_F(EventImages, Timers) {
  auto good = [] {
    pb::file_entry file;
    file.set_type(pb::TIMERFD);
    auto& t = *file.mutable_tfd();
    t.set_clockid(7), t.set_ticks(3), t.set_settime_flags(1), t.set_vsec(5), t.set_vnsec(999'999'999), t.set_isec(1);
    return file;
  };
  EXPECT_TRUE(passes(good()));
  const std::function<void(pb::timerfd_entry&)> wrong[] = {
      [](auto& t) { t.set_clockid(2); },          [](auto& t) { t.set_clockid(~0u); },
      [](auto& t) { t.set_settime_flags(4); },    [](auto& t) { t.set_vnsec(1'000'000'000); },
      [](auto& t) { t.set_insec(~uint64_t{0}); }, [](auto& t) { t.set_vsec(~uint64_t{0}); },
  };
  for (size_t i = 0; i < std::size(wrong); ++i) {
    auto file = good();
    wrong[i](*file.mutable_tfd());
    EXPECT_FALSE(passes(file)) << i;
  }
  pb::event_extra extra;
  extra.set_expires_sec(100), extra.set_expires_nsec(5);
  EXPECT_TRUE(passes(good(), {extra}));
  extra.set_expires_nsec(1'000'000'000);
  EXPECT_FALSE(passes(good(), {extra}));
  extra.set_expires_nsec(0), extra.set_expires_sec(-1);
  EXPECT_FALSE(passes(good(), {extra}));
}

TEST_F(EventImages, Epolls) {
  pb::file_entry file;
  file.set_type(pb::EVENTPOLL);
  auto& entry = *file.mutable_epfd()->add_tfd();
  entry.set_tfd(3);
  EXPECT_TRUE(passes(file));
  pb::event_extra extra;
  EXPECT_FALSE(passes(file, {extra}));
  extra.add_targets(8), extra.add_numbers(5);
  EXPECT_TRUE(passes(file, {extra}));
  extra.set_targets(0, 9);
  EXPECT_FALSE(passes(file, {extra})) << "a file that is not there";
  extra.set_targets(0, 8), extra.set_numbers(0, ~0u);
  EXPECT_FALSE(passes(file, {extra}));
  extra.set_numbers(0, 5), extra.add_numbers(6);
  EXPECT_FALSE(passes(file, {extra}));
  entry.set_tfd(1u << 30);
  EXPECT_FALSE(passes(file));
}

TEST_F(EventImages, Others) {
  pb::file_entry file;
  file.set_type(pb::EVENTFD);
  file.mutable_efd()->set_counter(~uint64_t{0} - 1);
  EXPECT_TRUE(passes(file));
  file.mutable_efd()->set_counter(~uint64_t{0});
  EXPECT_FALSE(passes(file));
  file.Clear(), file.set_type(pb::NS), file.mutable_nsf()->set_ns_cflag(0x40000000);
  EXPECT_TRUE(passes(file));
  file.mutable_nsf()->set_ns_cflag(1);
  EXPECT_FALSE(passes(file));
  file.Clear(), file.set_type(pb::PIDFD), file.mutable_pidfd()->set_nspid(1u << 31);
  EXPECT_FALSE(passes(file));
}

TEST(OwnerImages, OnlyWhomTheImagesHave) {
  const KnownIds known{{10, 11}, {10}, {10, 5}};
  pb::file_entry file;
  file.set_type(pb::PIPE), file.set_id(1);
  auto& fown = *file.mutable_pipe()->mutable_fown();
  auto passes = [&](uint32_t type, uint32_t pid, uint32_t signal) {
    fown.set_pid_type(type), fown.set_pid(pid), fown.set_signum(signal);
    return check_signals_image(file, known).has_value();
  };
  EXPECT_TRUE(passes(0, 0, 0) && passes(0, 11, 0) && passes(1, 10, 64) && passes(2, 5, 29));
  EXPECT_FALSE(passes(1, 11, 0));
  EXPECT_FALSE(passes(2, 11, 0));
  EXPECT_FALSE(passes(0, 1, 0));
  EXPECT_FALSE(passes(3, 10, 0));
  EXPECT_FALSE(passes(1, 10, 65));
}

TEST(TerminalImages, OneMasterEach) {
  std::map<uint32_t, pb::tty_info_entry> ttys;
  FileEntries files;
  auto add = [&](uint32_t id, uint32_t info, uint32_t index) {
    auto& tty = ttys[info];
    tty.set_id(info), tty.set_type(pb::PTY), tty.set_rdev(5u << 20 | 2), tty.mutable_pty()->set_index(index);
    files[id].set_id(id), files[id].set_type(pb::TTY), files[id].mutable_tty()->set_tty_info_id(info);
  };
  add(1, 100, 0), add(2, 101, 1);
  EXPECT_TRUE(check_ttys(ttys, files));
  add(3, 100, 0);
  EXPECT_FALSE(check_ttys(ttys, files)) << "open twice";
  files.erase(3);
  add(4, 102, 1);
  EXPECT_FALSE(check_ttys(ttys, files)) << "two of one terminal";
  files.erase(4);
  files[5].mutable_tty()->set_tty_info_id(999);
  EXPECT_FALSE(check_ttys(ttys, files)) << "an unknown one";
}

}  // namespace
}  // namespace stasis::files
