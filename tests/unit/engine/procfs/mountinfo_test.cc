// SPDX-License-Identifier: Apache-2.0
#include "engine/procfs/mountinfo.h"

#include <gtest/gtest.h>

namespace stasis::procfs {
namespace {

TEST(Mountinfo, ReadsEveryColumn) {
  auto m = parse_mountinfo_line(
      "48 47 0:43 /sub /d rw,relatime shared:2 master:1 propagate_from:7 unbindable - fuse.sshfs a:b rw,size=4k");
  ASSERT_TRUE(m) << m.error().line();
  EXPECT_EQ(m->mnt_id, 48);
  EXPECT_EQ(m->parent_id, 47);
  EXPECT_EQ(m->major, 0u);
  EXPECT_EQ(m->minor, 43u);
  EXPECT_EQ(m->root, "/sub");
  EXPECT_EQ(m->mountpoint, "/d");
  EXPECT_EQ(m->options, "rw,relatime");
  EXPECT_EQ(m->shared_id, 2);
  EXPECT_EQ(m->master_id, 1);
  EXPECT_EQ(m->propagate_from, 7);
  EXPECT_TRUE(m->unbindable);
  EXPECT_EQ(m->fstype, "fuse.sshfs");
  EXPECT_EQ(m->source, "a:b");
  EXPECT_EQ(m->super_options, "rw,size=4k");
}

TEST(Mountinfo, UndoesOctalEscapes) {
  auto m = parse_mountinfo_line("1 0 8:1 / /a\\040b\\011\\012\\134\\043 rw - ext4 /dev/a\\040b rw");
  ASSERT_TRUE(m);
  EXPECT_EQ(m->mountpoint, "/a b\t\n\\#");
  EXPECT_EQ(m->source, "/dev/a b");
  EXPECT_EQ(unescape_octal("\\04"), "\\04");
  EXPECT_EQ(unescape_octal("\\481"), "\\481");
  EXPECT_EQ(unescape_octal("\\777"), "\\777");
}

TEST(Mountinfo, AcceptsUnknownTagsAndAnEmptySource) {
  auto m = parse_mountinfo_line("1 0 0:5 / / rw future:3 - tmpfs  rw");
  ASSERT_TRUE(m) << m.error().line();
  EXPECT_EQ(m->source, "");
  EXPECT_EQ(m->super_options, "rw");
  EXPECT_EQ(m->shared_id, 0);
}

TEST(Mountinfo, RefusesMalformedLines) {
  for (const char* line :
       {"x 0 0:5 / / rw - tmpfs t rw", "1 0 0-5 / / rw - tmpfs t rw", "1 0 0:5 / / rw shared:1 tmpfs t rw",
        "1 0 0:5 / / rw - tmpfs", "", "1 0 0:5:6 / / rw - tmpfs t rw", "1 0 0:5  / rw - tmpfs t rw"})
    EXPECT_FALSE(parse_mountinfo_line(line)) << line;
}

TEST(Mountinfo, ReadsWholeTexts) {
  auto all = parse_mountinfo("1 0 0:5 / / rw - tmpfs t rw\n2 1 0:6 / /proc rw - proc proc rw\n");
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 2u);
  EXPECT_EQ((*all)[1].fstype, "proc");
  EXPECT_FALSE(parse_mountinfo("1 0 0:5 / / rw - tmpfs t rw\nbroken\n"));
}

}  // namespace
}  // namespace stasis::procfs
