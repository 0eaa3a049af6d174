// SPDX-License-Identifier: Apache-2.0
#include "integration/lxc/config.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <map>

#include "integration/plan_lxc.h"
#include "integration/plan_options.h"
#include "integration/plan_yaml.h"

namespace stasis::integration::lxc {
namespace {

// Files as text; a name that ends in a slash is a directory.
Files files_of(std::map<std::string, std::string> texts) {
  Files out;
  out.read = [texts](const std::string& path) -> Result<std::string> {
    auto found = texts.find(path);
    if (found != texts.end()) return found->second;
    errno = ENOENT;
    return fail_sys("open", path);
  };
  out.list = [texts](const std::string& path) -> Result<std::vector<std::string>> {
    std::vector<std::string> names;
    for (const auto& [name, text] : texts)
      if (name.starts_with(path + "/")) names.push_back(name.substr(path.size() + 1));
    errno = ENOTDIR;
    if (names.empty()) return fail_sys("list", path);
    return names;
  };
  return out;
}

Result<Config> parse(const std::string& text, std::map<std::string, std::string> more = {}) {
  more["/c/config"] = text;
  return parse_config("/c/config", files_of(std::move(more)));
}

std::string error_of(const std::string& text, std::map<std::string, std::string> more = {}) {
  auto config = parse(text, std::move(more));
  if (config) return "parsed";
  EXPECT_EQ(config.error().code(), Code::kBadDescription);
  return config.error().message();
}

TEST(LxcConfig, ReadsEveryKindOfKey) {
  auto config = parse(R"(# a comment
lxc.uts.name = box
  lxc.rootfs.path = dir:/srv/box
lxc.rootfs.options = idmap=container
lxc.mount.entry = /srv/my\040data data none bind,create=dir 0 0
lxc.mount.entry = tmpfs tmp tmpfs rw
lxc.mount.auto = proc:mixed sys:ro
lxc.mount.auto = cgroup
lxc.cgroup.devices.deny = a
lxc.cgroup.devices.allow = c 1:3 rwm
lxc.cgroup2.memory.max = 1G
lxc.net.0.type = veth
lxc.net.0.link = br0
lxc.net.0.veth.pair = box0
lxc.net.0.ipv4.address = 10.0.0.2/24
lxc.net.1.type = macvlan
lxc.net.1.name = lan
lxc.init.cmd = /sbin/init --quiet
lxc.init.uid = 1000
lxc.idmap = u 0 100000 65536
lxc.idmap = g 0 100000 65536
lxc.tty.max = 4
lxc.console.path = none
lxc.environment = "A=b c"
lxc.cap.drop = sys_module sys_time
lxc.cap.drop = mac_admin
lxc.seccomp.profile = /s
lxc.apparmor.profile = unconfined
lxc.prlimit.nofile = 1024
lxc.namespace.share.net = /run/netns/x
lxc.hook.start = /bin/true
lxc.start.auto = 1
lxc.future.key = 1
not a key of LXC
)");
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->uts_name, "box");
  EXPECT_EQ(config->rootfs_path, "/srv/box");
  ASSERT_EQ(config->mounts.size(), 2u);
  EXPECT_EQ(config->mounts[0].source, "/srv/my data");
  EXPECT_TRUE(config->mounts[0].is_bind());
  EXPECT_TRUE(config->mounts[0].has("create"));
  EXPECT_FALSE(config->mounts[1].is_bind());
  EXPECT_EQ(to_string(config->mounts[1].from), "config:6");
  EXPECT_EQ(config->mount_auto, (std::vector<std::string>{"proc:mixed", "sys:ro", "cgroup"}));
  ASSERT_EQ(config->cgroup.size(), 2u);
  EXPECT_EQ(config->cgroup[1].key, "devices.allow");
  EXPECT_EQ(config->cgroup2[0].value, "1G");
  EXPECT_EQ(config->networks.at(0).veth_pair, "box0");
  EXPECT_EQ(config->networks.at(0).ipv4, (std::vector<std::string>{"10.0.0.2/24"}));
  EXPECT_EQ(config->networks.at(1).name, "lan");
  EXPECT_EQ(config->init.cmd, "/sbin/init --quiet");
  EXPECT_EQ(config->init.uid, 1000u);
  ASSERT_EQ(config->idmaps.size(), 2u);
  EXPECT_EQ(config->idmaps[1].kind, 'g');
  EXPECT_EQ(config->terminals.tty_max, 4u);
  EXPECT_EQ(config->terminals.console_path, "none");
  EXPECT_EQ(config->environment, (std::vector<std::string>{"A=b c"}));
  EXPECT_EQ(config->cap_drop, (std::vector<std::string>{"sys_module", "sys_time", "mac_admin"}));
  EXPECT_EQ(config->namespaces_shared.at("net"), "/run/netns/x");
  EXPECT_EQ(config->hooks.size(), 1u);
  EXPECT_EQ(config->unknown, (std::vector<std::string>{"lxc.future.key"}));
  EXPECT_EQ(config->entries.back().key, "lxc.future.key");
}

TEST(LxcConfig, AnEmptyValueEmptiesTheList) {
  auto config =
      parse("lxc.cap.drop = a b\nlxc.cap.drop =\nlxc.cap.drop = c\nlxc.mount.entry = a b c d\nlxc.mount.entry =\n");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->cap_drop, (std::vector<std::string>{"c"}));
  EXPECT_TRUE(config->mounts.empty());
}

TEST(LxcConfig, IncludesFilesAndDirectories) {
  auto config = parse("lxc.include = /one\nlxc.include = /d\nlxc.mount.fstab = /fstab\n",
                      {{"/one", "lxc.uts.name = one\n"},
                       {"/d/a.conf", "lxc.tty.max = 2\n"},
                       {"/d/b.conf", "lxc.tty.max = 3\n"},
                       {"/fstab", "# hosts\n/etc/hosts etc/hosts none bind 0 0\n"}});
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->uts_name, "one");
  EXPECT_EQ(config->terminals.tty_max, 3u);
  ASSERT_EQ(config->mounts.size(), 1u);
  EXPECT_EQ(to_string(config->mounts[0].from), "fstab:2");
}

TEST(LxcConfig, RefusesIncludesThatDoNotEnd) {
  EXPECT_EQ(error_of("\nlxc.include = /c/config\n"), "/c/config:2: /c/config includes itself");
  EXPECT_EQ(error_of("lxc.include = /a\n", {{"/a", "lxc.include = /b\n"}, {"/b", "lxc.include = /a\n"}}),
            "/b:1: /a includes itself");
  std::map<std::string, std::string> chain;
  for (int i = 0; i < 40; ++i) chain[cat("/f", i)] = cat("lxc.include = /f", i + 1, "\n");
  EXPECT_NE(error_of("lxc.include = /f0\n", chain).find("nested deeper"), std::string::npos);
  // Each includes the next one many times: few files, no loop, and no end in sight.
  std::map<std::string, std::string> tree;
  for (int i = 0; i < 12; ++i)
    for (int k = 0; k < 8; ++k) tree[cat("/t", i)] += cat("lxc.include = /t", i + 1, "\n");
  tree["/t12"] = "\n";
  EXPECT_NE(error_of("lxc.include = /t0\n", tree).find("more than 512 files"), std::string::npos);
  EXPECT_NE(error_of("lxc.include = relative\n").find("config:1: the include \"relative\""), std::string::npos);
  EXPECT_NE(error_of("lxc.include = /missing\n").find("config:1: "), std::string::npos);
}

TEST(LxcConfig, NamesFileAndLineOfWhatIsWrong) {
  for (const char* line :
       {"lxc.uts.name", "lxc.idmap = u 0 1", "lxc.idmap = x 0 1 2", "lxc.idmap = u 0 4294967295 2",
        "lxc.tty.max = many", "lxc.net.x.type = veth", "lxc.net.0.type = token", "lxc.mount.entry = a b",
        "lxc.mount.entry = /a ../../etc none bind 0 0", "lxc.mount.entry = a\\000 b c d", "lxc.init.uid = -1",
        "lxc.no_new_privs = perhaps", "lxc.mount.entry = a b c d e f g"}) {
    const std::string text = error_of(cat("# first\n", line, "\n"));
    EXPECT_EQ(text.substr(0, 13), "/c/config:2: ") << line << ": " << text;
  }
}

TEST(LxcConfig, RefusesWhatIsNoText) {
  EXPECT_NE(error_of(std::string("lxc.uts.name = a\0b\n", 19)).find("NUL"), std::string::npos);
  EXPECT_NE(error_of("lxc.uts.name = \xff\n").find("UTF-8"), std::string::npos);
  EXPECT_NE(error_of(std::string(config::kMaxText + 1, '\n')).find("16 MiB"), std::string::npos);
}

HostInfo host() {
  HostInfo out;
  out.hierarchies = {{{"memory"}, false, "/sys/fs/cgroup/memory", {}}, {{}, true, "/sys/fs/cgroup/unified", {}}};
  out.own = {{"memory", "/"}, {"", "/"}};
  return out;
}

Plan plan_of(const std::string& text, const HostInfo& where = host()) {
  auto config = parse(text);
  EXPECT_TRUE(config);
  auto plan = plan_lxc(*config, "box", "/c", nullptr, where);
  EXPECT_TRUE(plan) << plan.error().message();
  return plan ? *plan : Plan{};
}

TEST(PlanLxc, MountsAreNamedAsLxcNamesThem) {
  const Plan plan = plan_of(
      "lxc.rootfs.path = /r\nlxc.mount.entry = /srv/a /r/data none rbind 0 0\nlxc.mount.entry = /srv/b opt/b none "
      "bind\n"
      "lxc.mount.entry = tmpfs tmp tmpfs rw\nlxc.mount.entry = /x /elsewhere none bind\n");
  ASSERT_EQ(plan.mounts.size(), 2u);
  EXPECT_EQ(plan.mounts[0], (PlannedMount{"/data", "data", "/srv/a", "", "config:2"}));
  EXPECT_EQ(plan.mounts[1], (PlannedMount{"/opt/b", "opt/b", "/srv/b", "", "config:3"}));
  EXPECT_TRUE(plan.auto_mounts);
}

TEST(PlanLxc, CgroupsOfEachHierarchy) {
  Plan plan = plan_of("lxc.rootfs.path = /r\n");
  ASSERT_EQ(plan.cgroups.roots.size(), 2u);
  EXPECT_EQ(root_text(plan.cgroups.roots[0]), "memory:/lxc.payload.box");
  EXPECT_EQ(root_text(plan.cgroups.roots[1]), "/lxc.payload.box");
  EXPECT_EQ(plan.cgroups.mode, CgroupMode::kSoft);
  plan = plan_of("lxc.rootfs.path = /r\nlxc.cgroup.dir = pool/x\n");
  EXPECT_EQ(plan.cgroups.roots[0].path, "/pool/x");
}

TEST(PlanLxc, NamespacesAndNetwork) {
  Plan plan = plan_of("lxc.rootfs.path = /r\nlxc.net.0.type = empty\nlxc.namespace.keep = ipc\nlxc.idmap = u 0 1 2\n");
  EXPECT_EQ(*plan.find_namespace("network"), "empty");
  EXPECT_EQ(plan.find_namespace("ipc"), nullptr);
  EXPECT_EQ(*plan.find_namespace("user"), "new");
  plan = plan_of("lxc.rootfs.path = /r\nlxc.net.0.type = none\n");
  EXPECT_EQ(plan.find_namespace("network"), nullptr);
  plan = plan_of(
      "lxc.rootfs.path = /r\nlxc.net.0.type = veth\nlxc.net.0.link = br0\nlxc.net.0.veth.pair = p\n"
      "lxc.net.1.type = phys\nlxc.net.1.link = eth5\nlxc.net.1.name = wan\n");
  EXPECT_EQ(*plan.find_namespace("network"), "new");
  EXPECT_EQ(plan.restore_external, (std::vector<std::string>{"veth[eth0]:p@br0", "netdev[wan]:eth5", "mnt[console]:"}));
}

TEST(PlanLxc, TheConsoleStaysOutside) {
  HostInfo where = host();
  where.console_tty = "tty[8800:1a]";
  EXPECT_EQ(plan_of("lxc.rootfs.path = /r\n", where).dump_external, (std::vector<std::string>{"tty[8800:1a]"}));
  EXPECT_TRUE(plan_of("lxc.rootfs.path = /r\nlxc.console.path = none\n", where).dump_external.empty());
  // Brought back without LXC it is a terminal of the container's devpts, if that has any.
  EXPECT_EQ(plan_of("lxc.rootfs.path = /r\n").restore_external, (std::vector<std::string>{"mnt[console]:"}));
  EXPECT_TRUE(plan_of("lxc.rootfs.path = /r\nlxc.pty.max = 0\n").restore_external.empty());
  EXPECT_TRUE(plan_of("lxc.rootfs.path = /r\nlxc.console.path = none\n").restore_external.empty());
}

TEST(PlanLxc, ReachesTheEngineAndTheFile) {
  const Plan plan = plan_of("lxc.rootfs.path = /r\nlxc.net.0.type = veth\nlxc.net.0.link = br0\n");
  auto back = from_yaml(to_yaml(plan), "p");
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(to_yaml(*back), to_yaml(plan));
  EXPECT_EQ(back->restore_external, plan.restore_external);
  pb::criu_opts opts;
  ASSERT_TRUE(plan_to_options(*back, PlanFor::kRestore, host(), opts));
  EXPECT_TRUE(opts.auto_ext_mnt() && opts.ext_sharing() && opts.ext_masters());
  ASSERT_EQ(opts.external_size(), 2);
  EXPECT_EQ(opts.external(0), plan.restore_external[0]);
  EXPECT_EQ(opts.external(1), plan.restore_external[1]);
}

TEST(PlanLxc, RefusesStorageThatIsNoDirectory) {
  auto config = parse("lxc.rootfs.path = overlay:/a:/b\n");
  EXPECT_EQ(plan_lxc(*config, "box", "/c", nullptr, host()).error().code(), Code::kUnsupported);
}

}  // namespace
}  // namespace stasis::integration::lxc
