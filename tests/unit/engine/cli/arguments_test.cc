// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/arguments.h"

#include <gtest/gtest.h>

namespace stasis::cli {
namespace {

Request parse_ok(const std::vector<std::string>& args, bool stasis_door = false) {
  Request request;
  auto done = parse_arguments(args, stasis_door, request);
  EXPECT_TRUE(done) << done.error().line();
  return request;
}

std::string parse_error(const std::vector<std::string>& args) {
  Request request;
  auto done = parse_arguments(args, false, request);
  return done ? "" : done.error().line();
}

// What LXC 5.0.2 passes, option by option.
TEST(Arguments, LxcDump) {
  const Request r = parse_ok({"dump",
                              "--tcp-established",
                              "--file-locks",
                              "--link-remap",
                              "--manage-cgroups=full",
                              "--ext-mount-map",
                              "auto",
                              "--enable-external-sharing",
                              "--enable-external-masters",
                              "--enable-fs",
                              "hugetlbfs",
                              "--enable-fs",
                              "tracefs",
                              "-D",
                              "/ckpt",
                              "-o",
                              "/ckpt/dump.log",
                              "--cgroup-root",
                              "hugetlb:/lxc.payload.c1",
                              "--cgroup-root",
                              "name=systemd:/lxc.payload.c1",
                              "--cgroup-root",
                              "lxc.payload.c1",
                              "-v4",
                              "-t",
                              "4711",
                              "--skip-in-flight",
                              "--freeze-cgroup",
                              "/sys/fs/cgroup/freezer//lxc.payload.c1",
                              "--ext-mount-map",
                              "/dev/console:console",
                              "--external",
                              "tty[8800:1a]",
                              "--force-irmap",
                              "--leave-running"});
  EXPECT_EQ(r.words, std::vector<std::string>{"dump"});
  EXPECT_TRUE(r.opts.tcp_established());
  EXPECT_TRUE(r.opts.file_locks());
  EXPECT_TRUE(r.opts.link_remap());
  EXPECT_EQ(r.opts.manage_cgroups_mode(), pb::FULL);
  EXPECT_TRUE(r.opts.auto_ext_mnt());
  EXPECT_TRUE(r.opts.ext_sharing());
  EXPECT_TRUE(r.opts.ext_masters());
  ASSERT_EQ(r.opts.enable_fs_size(), 2);
  EXPECT_EQ(r.opts.enable_fs(1), "tracefs");
  EXPECT_EQ(r.opts.images_dir(), "/ckpt");
  EXPECT_EQ(r.opts.log_file(), "/ckpt/dump.log");
  ASSERT_EQ(r.opts.cg_root_size(), 3);
  EXPECT_EQ(r.opts.cg_root(1).ctrl(), "name=systemd");
  EXPECT_EQ(r.opts.cg_root(1).path(), "/lxc.payload.c1");
  EXPECT_FALSE(r.opts.cg_root(2).has_ctrl());
  EXPECT_EQ(r.opts.cg_root(2).path(), "lxc.payload.c1");
  EXPECT_EQ(r.opts.log_level(), 4);
  EXPECT_EQ(r.opts.pid(), 4711);
  EXPECT_TRUE(r.opts.tcp_skip_in_flight());
  EXPECT_EQ(r.opts.freeze_cgroup(), "/sys/fs/cgroup/freezer//lxc.payload.c1");
  ASSERT_EQ(r.opts.ext_mnt_size(), 1);
  EXPECT_EQ(r.opts.ext_mnt(0).key(), "/dev/console");
  EXPECT_EQ(r.opts.ext_mnt(0).val(), "console");
  EXPECT_EQ(r.opts.external(0), "tty[8800:1a]");
  EXPECT_TRUE(r.opts.force_irmap());
  EXPECT_TRUE(r.opts.leave_running());
}

TEST(Arguments, LxcRestoreWithItsJunk) {
  const Request r = parse_ok({"restore",
                              "--tcp-established",
                              "--manage-cgroups=full",
                              "-D",
                              "/ckpt",
                              "-o",
                              "/ckpt/restore.log",
                              "--root",
                              "/usr/lib/x86_64-linux-gnu/lxc/rootfs",
                              "--restore-detached",
                              "--restore-sibling",
                              "--inherit-fd",
                              "fd[7]:tty[8800:1a]",
                              "--ext-mount-map",
                              "console:",
                              "--lsm-profile",
                              "apparmor:unconfined",
                              "--external",
                              "apparmor:unconfined",
                              "--external",
                              "veth[eth0]:vethAB@lxcbr0"});
  EXPECT_EQ(r.words, std::vector<std::string>{"restore"});
  EXPECT_EQ(r.opts.root(), "/usr/lib/x86_64-linux-gnu/lxc/rootfs");
  EXPECT_TRUE(r.opts.stasis_restore_detached());
  EXPECT_TRUE(r.opts.rst_sibling());
  ASSERT_EQ(r.opts.inherit_fd_size(), 1);
  EXPECT_EQ(r.opts.inherit_fd(0).fd(), 7);
  EXPECT_EQ(r.opts.inherit_fd(0).key(), "tty[8800:1a]");
  EXPECT_EQ(r.opts.ext_mnt(0).key(), "console");
  EXPECT_EQ(r.opts.ext_mnt(0).val(), "");
  EXPECT_EQ(r.opts.external_size(), 2);
}

TEST(Arguments, VerbosityForms) {
  EXPECT_EQ(parse_ok({"-v4"}).opts.log_level(), 4);
  EXPECT_EQ(parse_ok({"-v"}).opts.log_level(), 1);
  EXPECT_EQ(parse_ok({"-vvv"}).opts.log_level(), 3);
  EXPECT_EQ(parse_ok({"-v", "-v"}).opts.log_level(), 2);
  EXPECT_EQ(parse_ok({"--verbosity=3"}).opts.log_level(), 3);
  EXPECT_EQ(parse_ok({"-vvvvvvv"}).opts.log_level(), 4);
  EXPECT_FALSE(parse_ok({"dump"}).opts.has_log_level());
}

TEST(Arguments, FormsOfValues) {
  EXPECT_EQ(parse_ok({"-D/x"}).opts.images_dir(), "/x");
  EXPECT_EQ(parse_ok({"-D", "/x"}).opts.images_dir(), "/x");
  EXPECT_EQ(parse_ok({"--images-dir=/x"}).opts.images_dir(), "/x");
  EXPECT_EQ(parse_ok({"--images-dir", "-x"}).opts.images_dir(), "-x");
  const Request bundled = parse_ok({"-dSt5"});
  EXPECT_TRUE(bundled.opts.stasis_restore_detached());
  EXPECT_TRUE(bundled.opts.rst_sibling());
  EXPECT_EQ(bundled.opts.pid(), 5);
  // An optional value is never the next word.
  const Request optional = parse_ok({"--manage-cgroups", "dump", "-x", "5"});
  EXPECT_EQ(optional.opts.manage_cgroups_mode(), pb::SOFT);
  EXPECT_EQ(optional.words, (std::vector<std::string>{"dump", "5"}));
  EXPECT_EQ(optional.opts.unix_sk_ino_size(), 0);
}

TEST(Arguments, NegationAndTheLastWordCount) {
  EXPECT_FALSE(parse_ok({"--leave-running", "--no-leave-running"}).opts.leave_running());
  EXPECT_TRUE(parse_ok({"--no-leave-running", "-R"}).opts.leave_running());
  EXPECT_FALSE(parse_ok({"--page-server", "--no-page-server"}).opts.has_ps());
  EXPECT_EQ(parse_ok({"-t1", "-t", "2"}).opts.pid(), 2);
}

TEST(Arguments, Abbreviations) {
  EXPECT_EQ(parse_ok({"--images=/x"}).opts.images_dir(), "/x");
  EXPECT_NE(parse_error({"--leave"}).find("could be"), std::string::npos);
  // An exact name is never ambiguous, even where it begins another one.
  EXPECT_TRUE(parse_ok({"--tls"}).opts.tls());
}

TEST(Arguments, Errors) {
  EXPECT_NE(parse_error({"--nonsense"}).find("unknown option --nonsense"), std::string::npos);
  EXPECT_NE(parse_error({"-q"}).find("unknown option -q"), std::string::npos);
  EXPECT_NE(parse_error({"-t"}).find("needs a value"), std::string::npos);
  EXPECT_NE(parse_error({"--tree"}).find("needs a value"), std::string::npos);
  EXPECT_NE(parse_error({"--leave-running=yes"}).find("takes no value"), std::string::npos);
  EXPECT_NE(parse_error({"--tree", "none"}).find("--tree"), std::string::npos);
  EXPECT_NE(parse_error({"--plan", "x"}).find("unknown option"), std::string::npos) << "an option of stasis only";
}

TEST(Arguments, ExecCmdTakesTheWordsAfterTheCommand) {
  Request r = parse_ok({"restore", "-D", "/x", "--exec-cmd", "--", "/bin/super", "-t", "--help"});
  ASSERT_TRUE(take_exec_cmd(r, 1));
  ASSERT_EQ(r.opts.exec_cmd_size(), 3);
  EXPECT_EQ(r.opts.exec_cmd(0), "/bin/super");
  EXPECT_EQ(r.opts.exec_cmd(2), "--help");
  EXPECT_FALSE(r.help);
  EXPECT_EQ(r.words, std::vector<std::string>{"restore"});

  Request none = parse_ok({"restore", "--exec-cmd"});
  EXPECT_EQ(take_exec_cmd(none, 1).error().code(), Code::kUsage);
  Request stray = parse_ok({"restore", "stray"});
  EXPECT_EQ(take_exec_cmd(stray, 1).error().code(), Code::kUsage);
}

TEST(Arguments, OwnOptionsOfACaller) {
  const OptionSpec own[] = {
      {'b', "bundle", Arg::kRequired, false, Support::kBuilt, kRestore, "", "DIR", "bundle", nullptr},
      {0, "json", Arg::kNone, false, Support::kBuilt, kRestore, "", "", "json", nullptr}};
  Request r;
  const std::vector<std::string> args = {"--bundle", "/b", "--json", "id", "--force", "--plan=p.yaml"};
  ASSERT_TRUE(parse_arguments(args, true, r, own));
  EXPECT_EQ(r.extra["bundle"], std::vector<std::string>{"/b"});
  EXPECT_TRUE(r.extra.contains("json"));
  EXPECT_TRUE(r.opts.stasis_replace_images());
  EXPECT_EQ(r.opts.stasis_plan_file(), "p.yaml");
  EXPECT_EQ(r.words, std::vector<std::string>{"id"});
}

}  // namespace
}  // namespace stasis::cli
