// SPDX-License-Identifier: Apache-2.0
#include "engine/into.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "engine/base/io.h"
#include "engine/into_message.h"
#include "engine/kernel/syscalls.h"
#include "engine/namespaces/namespaces.h"

namespace stasis::into {
namespace {

std::unexpected<Error> refuse(Code code, std::string why, std::string about) {
  return fail(Error(code, std::move(why)).about(std::move(about)));
}

// What the images have for themselves the container must have too, and nothing else.
Result<unsigned long> match_namespaces(const procfs::Procfs& proc, const tasks::Snapshot& s, const IntoTask& task) {
  unsigned long own = 0;
  for (const auto& kind : namespaces::all_kinds()) {
    const auto ours = proc.ns(::getpid(), kind.name);
    if (!ours && ours.error().code() == Code::kNotFound) continue;
    if (!(*ours == TRY(proc.ns(task.pid, kind.name)))) own |= kind.flag;
    if ((own & kind.flag) == (s.namespaces & kind.flag)) continue;
    return refuse(
        Code::kUnsupportedNamespace,
        cat("the ", kind.name, " namespace of the images is ", s.namespaces & kind.flag ? "its own" : "the host's",
            " and that of the runtime's container is ", own & kind.flag ? "its own" : "the host's"),
        cat(kind.name, " namespace"));
  }
  return own & ~task.joined & (CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET);
}

Result<void> check_tree(const procfs::Procfs& proc, const tasks::Snapshot& s, const tasks::TreePlan& tree, pid_t pid) {
  const auto status = TRY(proc.status(pid));
  const uint32_t root = tree.nodes.front().pid;
  if (root != 1 || status.ns_pid.empty() || status.ns_pid.back() != 1)
    return refuse(Code::kUnsupportedNamespace,
                  cat("the root task of the images is pid ", root, " and the runtime's is pid ",
                      status.ns_pid.empty() ? 0 : status.ns_pid.back(), " of its namespace; both have to be 1"),
                  cat("pid ", root));
  if (!tree.extra_roots.empty())
    return refuse(Code::kUnsupported,
                  "processes that entered the container from outside cannot go into another one yet",
                  cat("pid ", tree.nodes[static_cast<size_t>(tree.extra_roots.front())].pid));
  if (!s.ttys.empty())
    return refuse(Code::kUnsupportedFile, "a container with a terminal cannot go into a runtime's container yet",
                  "terminal");
  return {};
}

}  // namespace

Result<void> check_images(int images_dir) {
  const auto images = TRY(image::Reader::open(images_dir));
  const auto snapshot = TRY(tasks::load(images));
  TRY(tasks::plan_tree(snapshot, false));
  return {};
}

Result<Ground> look(const procfs::Procfs& proc, const tasks::Snapshot& s, const tasks::TreePlan& tree,
                    const mounts::RestorePlan& plan, const Options& options) {
  Ground ground;
  if (options.into.pid == 0) return ground;
  if (options.cgroup_mode != CgroupMode::kIgnore)
    return refuse(Code::kBadOption, "the control groups of a runtime's container are the runtime's", "cgroups");
  if (s.namespaces & CLONE_NEWUSER)
    return refuse(Code::kUnsupportedNamespace,
                  "a container with a user namespace cannot go into one of a runtime's making yet", "user namespace");
  ground.namespaces = TRY(match_namespaces(proc, s, options.into));
  if (!(s.namespaces & CLONE_NEWNS))
    return refuse(Code::kUnsupportedNamespace, "the images have no mount namespace of their own", "mnt namespace");
  TRY(check_tree(proc, s, tree, options.into.pid));
  const auto now = TRY(mounts::Table::read(proc.fd(), cat(options.into.pid)));
  ground.refills = TRY(mounts::match_runtime(plan, now));
  return ground;
}

bool can_keep_off(const memory::Runs& ranges) { return ranges.size() <= Orders::kMaxTaken; }

Result<tasks::Stubs> hand_over(tasks::StubEnv& env) {
  const IntoTask& task = env.options.into;
  int go[2], report[2];
  if (::pipe2(go, O_CLOEXEC) < 0) return fail_sys("pipe2");
  Fd go_read(go[0]), go_write(go[1]);
  if (::pipe2(report, O_CLOEXEC) < 0) return fail_sys("pipe2");
  Fd report_read(report[0]), report_write(report[1]);
  const Fd proc = TRY(open_at(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY));
  Fd pidfd = TRY(dup_at_least(task.pidfd.get()));
  auto stubs = TRY(tasks::Stubs::adopt(env, task.pid, std::move(pidfd), std::move(go_write), std::move(report_read)));
  Orders orders;
  orders.hole = env.shared.begin();
  orders.nodes = env.plan.nodes.size();
  orders.pool_base = env.pool.base;
  orders.log_level = static_cast<int>(log::level());
  put_taken(orders, env.taken);
  const int fixed[kFixedFds] = {env.options.images_dir.get(), env.shared.file(), go_read.get(), report_write.get(),
                                proc.get()};
  TRY(send_orders(task.socket.get(), orders, fixed, log::fd(), env.options.inherit_fds));
  return stubs;
}

Result<void> fill(const tasks::Snapshot& s, const Ground& ground, const Options& options) {
  const int pidfd = options.into.pidfd.get();
  if (ground.namespaces) {
    const auto inside = TRY(namespaces::Inside::enter(pidfd, ground.namespaces));
    TRY(namespaces::restore(*s.images, ground.namespaces, s.tasks.front().ids));
    TRY(namespaces::restore_objects(*s.images, ground.namespaces, s.tasks.front().ids));
  }
  std::vector<Fd> roots;
  if (!ground.refills.empty()) {
    const auto inside = TRY(namespaces::Inside::enter(pidfd, CLONE_NEWNS));
    for (const auto& refill : ground.refills) roots.push_back(TRY(mounts::open_refill(refill)));
  }
  for (size_t i = 0; i < ground.refills.size(); ++i) {
    const Fd image = TRY(s.images->open_raw(ground.refills[i].image));
    TRY(mounts::refill(image.get(), roots[i].get(), ground.refills[i]));
  }
  return {};
}

Result<void> take_down(const Options& options) {
  const std::string& scaffold = options.into.scaffold;
  if (scaffold.empty()) return {};
  const auto inside = TRY(namespaces::Inside::enter(options.into.pidfd.get(), CLONE_NEWNS));
  if (::umount2(scaffold.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) < 0) return fail_sys("umount", scaffold);
  if (::rmdir(scaffold.c_str()) < 0) return fail_sys("rmdir", scaffold);
  return {};
}

}  // namespace stasis::into
