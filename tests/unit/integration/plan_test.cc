// SPDX-License-Identifier: Apache-2.0
#include "integration/plan.h"

#include <gtest/gtest.h>

#include "integration/plan_options.h"
#include "integration/plan_yaml.h"

namespace stasis::integration {
namespace {

constexpr std::string_view kConfig = R"({
  "process": {"terminal": false, "args": ["sh"]},
  "root": {"path": "rootfs"},
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/var/run/data", "type": "bind", "source": "/srv/data", "options": ["rbind"]},
    {"destination": "/etc/conf", "source": "conf", "options": ["bind", "ro"]},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
  ],
  "linux": {
    "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "mount"}, {"type": "ipc", "path": "/proc/1/ns/ipc"}],
    "maskedPaths": ["/proc/acpi", "/proc/keys", "/proc/timer_list"]
  }
})";

HostInfo hybrid_host() {
  HostInfo host;
  host.hierarchies = {{{"memory"}, false, "/sys/fs/cgroup/memory", {}},
                      {{"cpu", "cpuacct"}, false, "/sys/fs/cgroup/cpu,cpuacct", {}},
                      {{"name=systemd"}, false, "/sys/fs/cgroup/systemd", {}},
                      {{}, true, "/sys/fs/cgroup/unified", {}}};
  host.own = {{"memory", "/me"}, {"cpu,cpuacct", "/"}, {"name=systemd", "/"}, {"", "/"}};
  host.resolve = [](const std::string& path) {
    return path.starts_with("/var/run/") ? "/run/" + path.substr(9) : path;
  };
  host.is_masked_file = [](const std::string& path) { return path != "/proc/acpi"; };
  return host;
}

runtimes::Container container() {
  runtimes::Container out;
  out.id = "web";
  out.runtime = "runc";
  out.pid = 77;
  out.bundle = "/b";
  out.rootfs = "/b/rootfs";
  out.cgroup_dirs = {{"memory", "/sys/fs/cgroup/memory/s/web"},
                     {"cpu", "/sys/fs/cgroup/cpu,cpuacct/web"},
                     {"cpuacct", "/sys/fs/cgroup/cpu,cpuacct/web"},
                     {"freezer", "/sys/fs/cgroup/freezer/web"},
                     {"", "/sys/fs/cgroup/unified/web"}};
  out.stdio = {"/dev/null", "pipe:[5]", "pipe:[5]"};
  return out;
}

Plan make_plan(bool running = true, const HostInfo& host = hybrid_host()) {
  auto spec = oci::parse_spec(kConfig, "config.json");
  EXPECT_TRUE(spec);
  const runtimes::Container c = container();
  auto plan = plan_oci(*spec, "/b", running ? &c : nullptr, host);
  EXPECT_TRUE(plan);
  return plan ? *plan : Plan{};
}

std::vector<std::pair<std::string, std::string>> ext_mounts(const pb::criu_opts& opts) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& mount : opts.ext_mnt()) out.emplace_back(mount.key(), mount.val());
  return out;
}
using Pairs = std::vector<std::pair<std::string, std::string>>;

TEST(PlanOci, GoldenYaml) {
  EXPECT_EQ(to_yaml(make_plan()),
            R"(# How stasis sees this container. Edit it and give it to `stasis restore --plan FILE`.
plan: 1
container:
  id: web
  runtime: runc
  pid: 77
  bundle: /b
root: /b/rootfs
engine: embedded
terminal: false
# mode: ignore (cgroups untouched), none, props, soft, full or strict.
# roots: where restored tasks go, "/path" or "controller,controller:/path".
cgroups:
  mode: ignore
  roots: []
  freezer: /sys/fs/cgroup/freezer/web
  paths:  # where the container was; the unified hierarchy is ""
    "": /web
    "cpu,cpuacct": /web
    memory: /s/web
# new, empty (network: made new, its contents are not kept) or the path of an existing one.
namespaces:
  pid: new
  network: new
  mount: new
  ipc: /proc/1/ns/ipc
# External mounts: at checkpoint container -> name, at restore name -> source.
# One with a hierarchy and no source follows the cgroup the tasks are restored into.
mounts:
  - from: "config.json $.mounts[1], bind"
    container: /run/data
    name: /run/data
    source: /srv/data
  - from: "config.json $.mounts[2], bind"
    container: /etc/conf
    name: /etc/conf
    source: /b/conf
  - from: "config.json $.mounts[3], hierarchy memory"
    container: /sys/fs/cgroup/memory
    name: /sys/fs/cgroup/memory
    hierarchy: memory
  - from: "config.json $.mounts[3], hierarchy cpu,cpuacct"
    container: "/sys/fs/cgroup/cpu,cpuacct"
    name: "/sys/fs/cgroup/cpu,cpuacct"
    hierarchy: "cpu,cpuacct"
  - from: "config.json $.mounts[3], hierarchy name=systemd"
    container: /sys/fs/cgroup/systemd
    name: /sys/fs/cgroup/systemd
    hierarchy: "name=systemd"
  - from: "config.json $.linux.maskedPaths[1]"
    container: /proc/keys
    name: /dev/null
    source: /dev/null
  - from: "config.json $.linux.maskedPaths[2]"
    container: /proc/timer_list
    name: /dev/null
    source: /dev/null
stdio: [/dev/null, "pipe:[5]", "pipe:[5]"]
supervisor: []
)");
}

TEST(PlanOci, CgroupNamespaceOrUnifiedHostNeedsNoBinds) {
  HostInfo host = hybrid_host();
  host.hierarchies = {{{}, true, "/sys/fs/cgroup", {}}};
  for (const PlannedMount& mount : make_plan(true, host).mounts) EXPECT_TRUE(mount.hierarchy.empty());
  auto spec = oci::parse_spec(R"({"root":{"path":"r"},"mounts":[{"destination":"/sys/fs/cgroup","type":"cgroup"}],
                                  "linux":{"namespaces":[{"type":"cgroup"}]}})",
                              "f");
  ASSERT_TRUE(spec);
  EXPECT_TRUE(plan_oci(*spec, "/b", nullptr, hybrid_host())->mounts.empty());
}

TEST(PlanOci, UserNamespaceBindsDevices) {
  auto spec = oci::parse_spec(R"({"root":{"path":"/r"},"linux":{"namespaces":[{"type":"user"}],
                                  "devices":[{"path":"/dev/fuse","type":"c"}]}})",
                              "f");
  ASSERT_TRUE(spec);
  const Plan plan = *plan_oci(*spec, "/b", nullptr, hybrid_host());
  ASSERT_EQ(plan.mounts.size(), 7u);
  EXPECT_EQ(plan.mounts.back().container, "/dev/fuse");
  EXPECT_EQ(plan.root, "/r");
}

TEST(PlanOci, NeedsARoot) {
  auto spec = oci::parse_spec("{}", "f");
  ASSERT_TRUE(spec);
  EXPECT_EQ(plan_oci(*spec, "/b", nullptr, hybrid_host()).error().code(), Code::kBadDescription);
}

TEST(PlanYaml, RoundTrip) {
  Plan plan = make_plan();
  plan.terminal = true;
  plan.cgroups.mode = CgroupMode::kStrict;
  plan.cgroups.roots = {{{}, "/n"}, {{"cpuacct", "cpu"}, "/s"}, {{"name=systemd"}, "/d"}};
  plan.supervisor = {"/bin/sh", "-c", "echo \"x\ny\""};
  auto back = from_yaml(to_yaml(plan), "p");
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(to_yaml(*back), to_yaml(plan));
  EXPECT_EQ(back->mounts, plan.mounts);
  EXPECT_EQ(back->supervisor, plan.supervisor);
  EXPECT_EQ(back->pid, 77);
  EXPECT_EQ(back->cgroups.roots[1].controllers, (std::vector<std::string>{"cpuacct", "cpu"}));
}

TEST(PlanYaml, EditedByHand) {
  auto plan = from_yaml(
      "plan: 1\nroot: /r\ncgroups: {mode: soft, roots: [/n, \"cpu,cpuacct:/s\"]}\n"
      "mounts:\n- {container: /a, name: 7, source: /x y}\nsupervisor: [sleep, 5]\n",
      "p");
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->cgroups.mode, CgroupMode::kSoft);
  EXPECT_EQ(plan->cgroups.roots[1].path, "/s");
  EXPECT_EQ(plan->mounts[0].name, "7");
  EXPECT_EQ(plan->mounts[0].source, "/x y");
  EXPECT_EQ(plan->supervisor, (std::vector<std::string>{"sleep", "5"}));
}

TEST(PlanYaml, RefusesMistakesByPlace) {
  const auto error_of = [](std::string_view text) {
    auto plan = from_yaml(text, "p.yaml");
    EXPECT_FALSE(plan) << text;
    return plan ? std::string() : plan.error().message();
  };
  EXPECT_EQ(error_of("plan: 1\nroots: /x\n"), "p.yaml: $.roots: unknown key (line 2, column 8)");
  EXPECT_NE(error_of("plan: 2\n").find("unknown plan version"), std::string::npos);
  EXPECT_NE(error_of("root: /r\n").find("$.plan: missing"), std::string::npos);
  EXPECT_NE(error_of("plan: 1\nroot: r\n").find("not absolute"), std::string::npos);
  EXPECT_NE(error_of("plan: 1\nroot: /a/../b\n").find("\"..\""), std::string::npos);
  EXPECT_NE(error_of("plan: 1\ncgroups: {mode: softly}\n").find("unknown cgroup mode"), std::string::npos);
  EXPECT_NE(error_of("plan: 1\ncgroups: {mode: soft, roots: [/a/../b]}\n").find("$.cgroups.roots[0]"),
            std::string::npos);
  EXPECT_NE(error_of("plan: 1\nmounts: [{container: /a, name: b}]\n").find("$.mounts[0].source: missing"),
            std::string::npos);
  EXPECT_NE(error_of("plan: 1\nmounts: [{container: /a, name: b, source: c}]\n").find("not absolute"),
            std::string::npos);
  EXPECT_NE(error_of("plan: 1\nmounts: [{container: /a, name: b, src: /c}]\n").find("$.mounts[0].src: unknown key"),
            std::string::npos);
  EXPECT_NE(error_of("plan: 1\nnamespaces: {net: new}\n").find("unknown namespace type"), std::string::npos);
  EXPECT_NE(error_of("plan: 1\nnamespaces: {pid: empty}\n").find("$.namespaces.pid"), std::string::npos);
  EXPECT_NE(error_of("plan: 1\ncontainer: {pid: -4}\n").find("not a process id"), std::string::npos);
  EXPECT_NE(error_of("plan: 1\nstdio: [a, b, c, d]\n").find("more than three"), std::string::npos);
  EXPECT_EQ(from_yaml("plan: 1\nengine: criu\n", "p").error().code(), Code::kBadDescription);
  auto other = from_yaml("plan: 1\nengine: /usr/sbin/criu\n", "p");
  ASSERT_TRUE(other);
  EXPECT_EQ(other->engine, "/usr/sbin/criu");
}

TEST(PlanOptions, Dump) {
  Plan plan = make_plan();
  for (auto& [type, what] : plan.namespaces)
    if (type == "network") what = "empty";
  pb::criu_opts opts;
  auto* given = opts.add_ext_mnt();
  given->set_key("/etc/conf");
  given->set_val("mine");
  ASSERT_TRUE(absorb_options(opts, PlanFor::kDump, hybrid_host(), plan));
  ASSERT_TRUE(plan_to_options(plan, PlanFor::kDump, hybrid_host(), opts));
  EXPECT_EQ(opts.pid(), 77);
  EXPECT_EQ(opts.freeze_cgroup(), "/sys/fs/cgroup/freezer/web");
  EXPECT_EQ(opts.empty_ns(), 0x40000000u);
  EXPECT_EQ(opts.manage_cgroups_mode(), pb::SOFT);  // always recorded: managing them is opt-in at restore
  EXPECT_FALSE(opts.orphan_pts_master());
  EXPECT_EQ(ext_mounts(opts), (Pairs{{"/run/data", "/run/data"},
                                     {"/etc/conf", "/etc/conf"},
                                     {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory"},
                                     {"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"},
                                     {"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd"},
                                     {"/proc/keys", "/dev/null"},
                                     {"/proc/timer_list", "/dev/null"},
                                     {"/etc/conf", "mine"}}));
}

TEST(PlanOptions, RestoreUnmanagedShowsOurOwnCgroups) {
  Plan plan = make_plan();
  plan.namespaces.clear();
  pb::criu_opts opts;
  ASSERT_TRUE(absorb_options(opts, PlanFor::kRestore, hybrid_host(), plan));
  ASSERT_TRUE(plan_to_options(plan, PlanFor::kRestore, hybrid_host(), opts));
  EXPECT_EQ(opts.root(), "/b/rootfs");
  EXPECT_EQ(opts.manage_cgroups_mode(), pb::IGNORE);
  EXPECT_EQ(ext_mounts(opts), (Pairs{{"/run/data", "/srv/data"},
                                     {"/etc/conf", "/b/conf"},
                                     {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/me"},
                                     {"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"},
                                     {"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd"},
                                     {"/dev/null", "/dev/null"}}));
  ASSERT_EQ(opts.inherit_fd_size(), 2);
  EXPECT_EQ(opts.inherit_fd(0).key(), "pipe:[5]");
  EXPECT_EQ(opts.inherit_fd(0).fd(), 1);
}

TEST(PlanOptions, CgroupRootsMoveTheMountsToo) {
  Plan plan = make_plan();
  plan.namespaces.clear();
  pb::criu_opts opts;
  opts.add_cg_root()->set_path("/n");
  auto* named = opts.add_cg_root();
  named->set_ctrl("cpuacct,cpu");
  named->set_path("/s");
  ASSERT_TRUE(absorb_options(opts, PlanFor::kRestore, hybrid_host(), plan));
  EXPECT_EQ(plan.cgroups.mode, CgroupMode::kSoft);  // asked for by the roots
  ASSERT_TRUE(plan_to_options(plan, PlanFor::kRestore, hybrid_host(), opts));
  const Pairs mounts = ext_mounts(opts);
  EXPECT_EQ(mounts[2].second, "/sys/fs/cgroup/memory/n");
  EXPECT_EQ(mounts[3].second, "/sys/fs/cgroup/cpu,cpuacct/s");
  EXPECT_EQ(mounts[4].second, "/sys/fs/cgroup/systemd/n");
  ASSERT_EQ(opts.cg_root_size(), 2);
  EXPECT_FALSE(opts.cg_root(0).has_ctrl());
  EXPECT_EQ(opts.cg_root(1).ctrl(), "cpuacct,cpu");
}

TEST(PlanOptions, ManagedWithoutRootsGoesBackWhereItWas) {
  Plan plan = make_plan();
  plan.cgroups.mode = CgroupMode::kSoft;
  EXPECT_EQ(*cgroup_source(plan, "memory", hybrid_host()), "/sys/fs/cgroup/memory/s/web");
  EXPECT_EQ(cgroup_source(plan, "blkio", hybrid_host()).error().code(), Code::kCgroup);
}

TEST(PlanOptions, RefusesBadRoots) {
  for (const auto& [ctrl, path] : {std::pair{"nosuch", "/n"}, std::pair{"memory", "/a/../b"}}) {
    Plan plan = make_plan();
    pb::criu_opts opts;
    auto* root = opts.add_cg_root();
    root->set_ctrl(ctrl);
    root->set_path(path);
    auto done = absorb_options(opts, PlanFor::kRestore, hybrid_host(), plan);
    ASSERT_FALSE(done) << ctrl;
    EXPECT_EQ(done.error().code(), Code::kCgroupRoot);
  }
  Plan plan = make_plan();
  pb::criu_opts opts;
  opts.add_cg_root()->set_path("/n");
  opts.set_manage_cgroups_mode(pb::IGNORE);
  EXPECT_EQ(absorb_options(opts, PlanFor::kRestore, hybrid_host(), plan).error().code(), Code::kBadOption);
}

TEST(PlanOptions, NamespacePathsAreJoined) {
  Plan plan;
  plan.namespaces = {{"ipc", "/proc/self/ns/ipc"}, {"network", "/proc/self/ns/net"}};
  pb::criu_opts opts;
  auto held = plan_to_options(plan, PlanFor::kRestore, hybrid_host(), opts);
  ASSERT_TRUE(held);
  ASSERT_EQ(held->size(), 1u);
  ASSERT_EQ(opts.inherit_fd_size(), 1);
  EXPECT_EQ(opts.inherit_fd(0).key(), "extRootNetNS");
  EXPECT_EQ(opts.inherit_fd(0).fd(), held->front().get());
  ASSERT_EQ(opts.join_ns_size(), 1);
  EXPECT_EQ(opts.join_ns(0).ns(), "ipc");
  plan.namespaces = {{"cgroup", "/proc/self/ns/cgroup"}};
  EXPECT_EQ(plan_to_options(plan, PlanFor::kRestore, hybrid_host(), opts).error().code(), Code::kUnsupportedNamespace);
}

TEST(PlanOptions, DescriptorsFile) {
  EXPECT_EQ(descriptors_json({"/dev/null", "pipe:[5]"}), R"(["/dev/null","pipe:[5]"])");
  EXPECT_TRUE(read_descriptors("/nonexistent")->empty());
}

}  // namespace
}  // namespace stasis::integration
