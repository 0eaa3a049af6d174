// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <functional>

#include "engine/files/unix_socket.h"

namespace stasis::files {
namespace {

using Files = std::map<uint32_t, pb::file_entry>;

void add(Files& files, uint32_t id, uint32_t inode, uint32_t peer, uint32_t state) {
  auto& file = files[id];
  file.set_id(id), file.set_type(pb::UNIXSK);
  auto& usk = *file.mutable_usk();
  usk.set_id(id), usk.set_ino(inode), usk.set_type(SOCK_STREAM), usk.set_state(state), usk.set_peer(peer);
}

Files good() {
  Files files;
  add(files, 1, 11, 12, kUnixEstablished);
  add(files, 2, 12, 11, kUnixEstablished);
  add(files, 3, 13, 0, kUnixListening);
  files[3].mutable_usk()->set_name(std::string("/run/x\0", 7));
  add(files, 4, 14, 13, kUnixEstablished);
  return files;
}

void refused(const std::function<void(Files&, pb::manifest_entry&)>& spoil) {
  Files files = good();
  pb::manifest_entry manifest;
  spoil(files, manifest);
  const auto result = check_unix_sockets(files, &manifest);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::kImageCorrupt) << result.error().message();
}

TEST(UnixLoad, TakesWhatIsRight) {
  EXPECT_TRUE(check_unix_sockets(good(), nullptr));
  EXPECT_EQ(unix_name(good()[3].usk()), "/run/x");
}

TEST(UnixLoad, RefusesWhatCannotBe) {
  refused([](auto& f, auto&) { f[1].clear_usk(); });
  refused([](auto& f, auto&) { f[1].mutable_usk()->set_type(77); });
  refused([](auto& f, auto&) { f[1].mutable_usk()->set_state(3); });
  refused([](auto& f, auto&) { f[1].mutable_usk()->set_ino(12); });
  refused([](auto& f, auto&) { f[1].mutable_usk()->set_peer(99); });
  refused([](auto& f, auto&) { f[1].mutable_usk()->set_peer(14); });
  refused([](auto& f, auto&) { f[1].mutable_usk()->set_name(std::string(109, 'x')); });
  refused([](auto& f, auto&) { f[1].mutable_usk()->set_name(std::string("a\0b", 3)); });
  refused([](auto& f, auto&) { f[1].mutable_usk()->set_name_dir("relative"); });
  refused([](auto& f, auto&) { f[3].mutable_usk()->set_name(""); });
  refused([](auto& f, auto&) { f[3].mutable_usk()->set_backlog(0x80000000u); });
  refused([](auto& f, auto&) { f[3].mutable_usk()->set_type(SOCK_DGRAM); });
  refused([](auto&, auto& m) { m.add_unix_extras()->set_file_id(9); });
  refused([](auto&, auto& m) {
    auto& extra = *m.add_unix_extras();
    extra.set_file_id(1), extra.set_peer_name(std::string(200, 'x'));
  });
  refused([](auto&, auto& m) {
    auto& extra = *m.add_unix_extras();
    extra.set_file_id(1), extra.set_mtime_nsec(1'000'000'000);
  });
  refused([](auto&, auto& m) {
    auto& extra = *m.add_packet_extras();
    extra.set_file_id(1), extra.set_index(0), extra.set_source(std::string(200, 'x'));
  });
}

TEST(UnixLoad, EndsOutsideAreAskedFor) {
  Files files = good();
  files[1].mutable_usk()->set_uflags(kUnixExternal);
  files.erase(2);
  EXPECT_TRUE(check_unix_sockets(files, nullptr));
  Options options;
  auto result = check_external_unix(files, options);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::kBadOption);
  options.inherit_fds.push_back({"socket:[11]", 5});
  EXPECT_TRUE(check_external_unix(files, options));
}

}  // namespace
}  // namespace stasis::files
