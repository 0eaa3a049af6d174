// SPDX-License-Identifier: Apache-2.0
// What images may say of POSIX message queues, and what not.
#include "engine/namespaces/posix_queues.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "proto/inventory.pb.h"
#include "proto/mqueue.pb.h"
#include "tests/unit/engine/image/temp_dir.h"

namespace stasis::namespaces {
namespace {

using Entries = std::vector<pb::mqueue_entry>;

Entries good() {
  Entries entries(3);
  auto& queue = *entries[0].mutable_queue();
  queue.set_name("q"), queue.set_uid(0), queue.set_gid(0), queue.set_mode(0600);
  queue.set_max_messages(2), queue.set_max_size(3);
  entries[1].mutable_message()->set_priority(9), entries[1].mutable_message()->set_text("abc");
  entries[2].mutable_message()->set_priority(9), entries[2].mutable_message()->set_text("");
  return entries;
}

// As mqueue-`id`.img; what is found there.
Result<bool> check(const Entries& entries, uint32_t id = 0, bool container = true) {
  image::TempDir dir;
  {
    auto writer = image::Writer::create(dir.fd(), false);
    EXPECT_TRUE(writer);
    pb::inventory_entry inventory;
    inventory.set_img_version(image::kImageVersion);
    EXPECT_TRUE(writer->put(image::Kind::kInventory, "inventory.img", inventory));
    EXPECT_TRUE(writer->put_all(image::Kind::kMqueue, image::file_name(image::Kind::kMqueue, id), entries));
    pb::file_extra extra;
    extra.set_file_id(7), extra.set_queue(id);
    writer->add_file_extra(extra);
    EXPECT_TRUE(writer->commit(false));
  }
  const auto images = image::Reader::open(dir.fd());
  EXPECT_TRUE(images);
  return check_posix_queue_images(*images, container);
}

void refused(const std::function<void(Entries&)>& spoil, uint32_t id = 0) {
  Entries entries = good();
  spoil(entries);
  const auto result = check(entries, id);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::kImageCorrupt) << result.error().message();
}

TEST(PosixQueues, TakesWhatIsRight) {
  EXPECT_TRUE(check(good()));
  EXPECT_TRUE(check(good(), 7));
  auto two = good();
  for (const auto& entry : good()) two.push_back(entry);
  EXPECT_TRUE(check(two));
}

TEST(PosixQueues, RefusesWhatCannotBe) {
  for (const auto* name : {"", ".", "..", "a/b", "/a"}) refused([&](auto& e) { e[0].mutable_queue()->set_name(name); });
  refused([](auto& e) { e[0].mutable_queue()->set_name(std::string("a\0b", 3)); });
  refused([](auto& e) { e[0].mutable_queue()->set_name(std::string(300, 'x')); });
  refused([](auto& e) { e[0].mutable_queue()->set_mode(0100600); });
  refused([](auto& e) { e[0].mutable_queue()->set_max_messages(0); });
  refused([](auto& e) { e[0].mutable_queue()->set_max_messages(1); });
  refused([](auto& e) { e[0].mutable_queue()->set_max_messages(1u << 20); });
  refused([](auto& e) { e[0].mutable_queue()->set_max_size(2); });
  refused([](auto& e) { e[0].mutable_queue()->set_max_size(~0u); });
  refused([](auto& e) { e[0].Clear(); });
  refused([](auto& e) { *e[0].mutable_message() = e[1].message(); });
  refused([](auto& e) { e.erase(e.begin()); });
  refused([](auto& e) { e[1].mutable_message()->set_priority(32768); });
  refused([](auto& e) { e[2].mutable_message()->set_priority(10); });
  refused([](auto& e) { e.push_back(e[0]); }, 7);
  refused([](auto& e) { e.clear(); }, 7);
}

TEST(PosixQueues, BelongToANamespace) { EXPECT_FALSE(check(good(), 0, false)); }

}  // namespace
}  // namespace stasis::namespaces
