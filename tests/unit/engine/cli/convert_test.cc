// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "engine/cli/validate.h"

namespace stasis::cli {
namespace {

constexpr Env kRpcDump{.action = Action::kDump, .door = Door::kRpc, .peer = 77};
constexpr Env kRpcRestore{.action = Action::kRestore, .door = Door::kRpc, .peer = 77};
constexpr Env kCriuRestore{.action = Action::kRestore, .door = Door::kCriu};
constexpr Env kCriuDump{.action = Action::kDump, .door = Door::kCriu};
constexpr Env kStasisDump{.action = Action::kDump, .door = Door::kStasis};

Code code_of(const pb::criu_opts& opts, const Env& env) {
  auto options = convert(opts, env);
  EXPECT_FALSE(options);
  return options ? Code::kInternal : options.error().code();
}

// The fields of a captured `runc checkpoint` request, runc 1.1.5.
pb::criu_opts runc_dump() {
  pb::criu_opts o;
  o.set_images_dir_fd(7);
  o.set_work_dir_fd(8);
  o.set_pid(4711);
  o.set_leave_running(false);
  o.set_ext_unix_sk(false);
  o.set_tcp_established(false);
  o.set_shell_job(false);
  o.set_file_locks(false);
  o.set_log_level(4);
  o.set_log_file("dump.log");
  o.set_notify_scripts(true);
  o.set_root("/b/rootfs");
  o.set_auto_dedup(false);
  o.set_lazy_pages(false);
  o.set_manage_cgroups(true);
  o.set_empty_ns(0x40000000);
  o.set_orphan_pts_master(true);
  o.set_config_file("/etc/criu/runc.conf");
  o.set_freeze_cgroup("/sys/fs/cgroup/freezer/c1");
  for (const auto* path : {"/proc/kcore", "/proc/keys"}) {
    auto* map = o.add_ext_mnt();
    map->set_key(path);
    map->set_val("/dev/null");
  }
  return o;
}

pb::criu_opts runc_restore() {
  pb::criu_opts o;
  o.set_images_dir_fd(7);
  o.set_evasive_devices(true);
  o.set_log_level(4);
  o.set_log_file("restore.log");
  o.set_notify_scripts(true);
  o.set_root("/run/runc/c1/criu-root");
  o.set_manage_cgroups(true);
  o.set_rst_sibling(true);
  o.set_empty_ns(0x40000000);
  o.set_orphan_pts_master(true);
  for (const auto& [ctrl, path] : {std::pair{"cpu", "/c1"}, {"cpuacct", "/c1"}, {"name=systemd", "/c1"}, {"", "/"}}) {
    auto* root = o.add_cg_root();
    root->set_ctrl(ctrl);
    root->set_path(path);
  }
  for (const int fd : {1, 2}) {
    auto* inherit = o.add_inherit_fd();
    inherit->set_key("pipe:[99]");
    inherit->set_fd(fd);
  }
  return o;
}

TEST(Convert, RuncDump) {
  auto options = convert(runc_dump(), kRpcDump);
  ASSERT_TRUE(options) << options.error().line();
  EXPECT_EQ(options->pid, 4711);
  EXPECT_TRUE(options->replace_images);
  EXPECT_EQ(options->cgroup_mode, CgroupMode::kSoft);
  EXPECT_TRUE(options->notify_scripts);
  EXPECT_TRUE(options->orphan_pts_master);
  EXPECT_EQ(options->empty_ns, 0x40000000u);
  EXPECT_EQ(options->log_level, log::Level::kDebug);
  EXPECT_EQ(options->root, "") << "a dump does not look at root";
  ASSERT_EQ(options->externals.size(), 2u);
  EXPECT_EQ(options->externals[0].kind, "mnt");
  EXPECT_EQ(options->externals[0].key, "/proc/kcore");
  EXPECT_EQ(options->externals[0].value, "/dev/null");
}

TEST(Convert, RuncRestore) {
  auto options = convert(runc_restore(), kRpcRestore);
  ASSERT_TRUE(options) << options.error().line();
  EXPECT_EQ(options->parent, RestoreParent::kSibling);
  EXPECT_EQ(options->root, "/run/runc/c1/criu-root");
  ASSERT_EQ(options->cgroup_roots.size(), 4u);
  EXPECT_EQ(options->cgroup_roots[2].controllers, std::vector<std::string>{"name=systemd"});
  EXPECT_EQ(options->cgroup_roots[3].controllers, std::vector<std::string>{""}) << "the unified hierarchy";
  ASSERT_EQ(options->inherit_fds.size(), 2u);
  EXPECT_EQ(options->inherit_fds[1].key, "pipe:[99]");
  EXPECT_EQ(options->inherit_fds[1].fd, 2);
}

TEST(Convert, DumpWithoutPidOverRpcMeansTheClient) {
  pb::criu_opts o;
  EXPECT_EQ(convert(o, kRpcDump)->pid, 77);
  EXPECT_EQ(code_of(o, kCriuDump), Code::kUsage);
  o.set_pid(-5);
  EXPECT_EQ(code_of(o, kRpcDump), Code::kBadOption);
}

TEST(Convert, CgroupModes) {
  pb::criu_opts o;
  EXPECT_EQ(convert(o, kRpcRestore)->cgroup_mode, CgroupMode::kSoft);
  EXPECT_EQ(convert(o, kCriuRestore)->cgroup_mode, CgroupMode::kIgnore) << "opt-in on a command line";
  o.set_manage_cgroups(false);
  EXPECT_EQ(convert(o, kRpcRestore)->cgroup_mode, CgroupMode::kIgnore);
  o.set_manage_cgroups(true);
  EXPECT_EQ(convert(o, kCriuRestore)->cgroup_mode, CgroupMode::kSoft);
  for (const auto& [wire, mode] : {std::pair{pb::IGNORE, CgroupMode::kIgnore},
                                   {pb::CG_NONE, CgroupMode::kNone},
                                   {pb::PROPS, CgroupMode::kProps},
                                   {pb::SOFT, CgroupMode::kSoft},
                                   {pb::FULL, CgroupMode::kFull},
                                   {pb::STRICT, CgroupMode::kStrict},
                                   {pb::DEFAULT, CgroupMode::kSoft}}) {
    o.set_manage_cgroups_mode(wire);
    EXPECT_EQ(convert(o, kRpcRestore)->cgroup_mode, mode);
  }
  pb::criu_opts root_only;
  root_only.add_cg_root()->set_path("/n");
  EXPECT_EQ(convert(root_only, kCriuRestore)->cgroup_mode, CgroupMode::kSoft);
  root_only.add_cg_root()->set_path("/a/../b");
  EXPECT_EQ(code_of(root_only, kCriuRestore), Code::kCgroupRoot);
}

TEST(Convert, Parents) {
  pb::criu_opts o;
  EXPECT_EQ(convert(o, kCriuRestore)->parent, RestoreParent::kWait);
  EXPECT_EQ(convert(o, kRpcRestore)->parent, RestoreParent::kDetached);
  o.set_stasis_restore_detached(true);
  EXPECT_EQ(convert(o, kCriuRestore)->parent, RestoreParent::kDetached);
  o.set_rst_sibling(true);
  EXPECT_EQ(convert(o, kCriuRestore)->parent, RestoreParent::kSibling);
  o.set_stasis_restore_detached(false);
  EXPECT_EQ(code_of(o, kCriuRestore), Code::kUsage) << "-S needs -d";
}

TEST(Convert, ExecCmd) {
  pb::criu_opts o;
  o.add_exec_cmd("/bin/true");
  EXPECT_EQ(convert(o, kCriuRestore)->parent, RestoreParent::kExecCmd);
  EXPECT_EQ(convert(o, kRpcRestore)->parent, RestoreParent::kExecCmd);
  EXPECT_EQ(code_of(o, kRpcDump), Code::kUsage);
  o.set_stasis_restore_detached(true);
  EXPECT_EQ(code_of(o, kCriuRestore), Code::kUsage);
  o.clear_stasis_restore_detached();
  o.set_rst_sibling(true);
  EXPECT_EQ(code_of(o, kRpcRestore), Code::kUsage);
  o.clear_rst_sibling();
  o.set_exec_cmd(0, "");
  EXPECT_EQ(code_of(o, kRpcRestore), Code::kBadSupervisor);
}

TEST(Convert, WhatIsNotBuiltIsRefusedByName) {
  const auto refused = [](auto set, const char* name) {
    pb::criu_opts o;
    o.set_pid(5);
    set(o);
    auto options = convert(o, kRpcDump);
    ASSERT_FALSE(options) << name;
    EXPECT_EQ(options.error().code(), Code::kUnsupportedOption);
    EXPECT_EQ(options.error().object(), name);
  };
  refused([](auto& o) { o.set_lazy_pages(true); }, "--lazy-pages");
  refused([](auto& o) { o.mutable_ps(); }, "--page-server");
  refused([](auto& o) { o.set_parent_img("../a"); }, "--prev-images-dir");
  refused([](auto& o) { o.set_track_mem(true); }, "--track-mem");
  refused([](auto& o) { o.set_cgroup_props("x"); }, "--cgroup-props");
  refused([](auto& o) { o.set_cgroup_props_file("x"); }, "--cgroup-props-file");
}

TEST(Convert, Externals) {
  pb::criu_opts o;
  for (const auto* text : {"mnt[/a]:b", "net[4026532177]:extRootNetNS", "tty[8800:1a]", "mnt[]:ms",
                           "console:", "apparmor:unconfined", "veth[eth0]:v0@br0", "dev[8/1]:disk", "[x]:y", ""})
    o.add_external(text);
  auto* pair = o.add_veths();
  pair->set_if_in("eth1");
  pair->set_if_out("v1");
  o.add_unix_sk_ino()->set_inode(99);
  auto options = convert(o, kRpcRestore);
  ASSERT_TRUE(options) << options.error().line();
  EXPECT_TRUE(options->auto_ext_mnt);
  EXPECT_TRUE(options->ext_masters);
  EXPECT_TRUE(options->ext_sharing);
  const auto& e = options->externals;
  ASSERT_EQ(e.size(), 11u);
  EXPECT_EQ(e[0].key, "eth1");
  EXPECT_EQ(e[1].kind, "unix");
  EXPECT_EQ(e[1].key, "99");
  EXPECT_EQ(e[2].kind, "mnt");
  EXPECT_EQ(e[2].value, "b");
  EXPECT_EQ(e[3].kind, "net");
  EXPECT_EQ(e[3].key, "4026532177");
  EXPECT_EQ(e[4].key, "8800:1a");
  EXPECT_EQ(e[4].value, "");
  EXPECT_EQ(e[5].kind, "") << "unknown strings are kept and never match";
  EXPECT_EQ(e[5].key, "console:");
  EXPECT_EQ(e[7].value, "v0@br0");
  EXPECT_EQ(e[9].kind, "");
}

TEST(Convert, HostileStringsAndNumbers) {
  pb::criu_opts o;
  o.set_root(std::string("/a\0b", 4));
  EXPECT_EQ(code_of(o, kRpcRestore), Code::kBadOption);
  pb::criu_opts nested;
  auto* map = nested.add_ext_mnt();
  map->set_key("/a");
  map->set_val(std::string("b\0", 2));
  EXPECT_EQ(code_of(nested, kRpcRestore), Code::kBadOption);
  for (const auto* name : {"", ".", "..", "../x", "/etc/x", "a/b"}) {
    pb::criu_opts log;
    log.set_log_file(name);
    EXPECT_EQ(code_of(log, kRpcRestore), Code::kBadOption) << name;
  }
  pb::criu_opts ns;
  ns.set_empty_ns(0x40000000u | 0x20000000u);
  EXPECT_EQ(code_of(ns, kRpcRestore), Code::kBadOption);
  pb::criu_opts join;
  join.add_join_ns()->set_ns("pid");
  join.mutable_join_ns(0)->set_ns_file("/x");
  EXPECT_EQ(code_of(join, kRpcRestore), Code::kBadOption);
  pb::criu_opts inherit;
  inherit.add_inherit_fd()->set_fd(-2);
  inherit.mutable_inherit_fd(0)->set_key("x");
  EXPECT_EQ(code_of(inherit, kRpcRestore), Code::kBadOption);
  pb::criu_opts lsm;
  lsm.set_lsm_profile("unconfined");
  EXPECT_EQ(code_of(lsm, kRpcRestore), Code::kBadOption);
}

TEST(Convert, DefaultsAndLimits) {
  pb::criu_opts o;
  o.set_pid(5);
  o.set_log_level(99);
  o.add_enable_fs("hugetlbfs,tracefs,");
  o.add_enable_fs("all");
  auto options = convert(o, kStasisDump);
  ASSERT_TRUE(options);
  EXPECT_EQ(options->log_level, log::Level::kDebug);
  EXPECT_EQ(options->timeout_seconds, 10u);
  EXPECT_EQ(options->ghost_limit, 1u << 30);
  EXPECT_FALSE(options->build_ids) << "reading them is seen by who watches the files";
  EXPECT_FALSE(options->replace_images) << "only --force replaces on our own command line";
  EXPECT_EQ(options->enable_fs, (std::vector<std::string>{"hugetlbfs", "tracefs", "all"}));
  o.set_stasis_replace_images(true);
  o.set_timeout(0);
  EXPECT_TRUE(convert(o, kStasisDump)->replace_images);
  EXPECT_EQ(convert(o, kStasisDump)->timeout_seconds, 10u);
}

}  // namespace
}  // namespace stasis::cli
