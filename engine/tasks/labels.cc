// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/labels.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <set>

#include "engine/base/io.h"
#include "proto/inventory.pb.h"

namespace stasis::tasks {
namespace {

constexpr size_t kLongestLabel = 3000;  // with the command before it, a page at most, proc_pid_attr_write()

// Linux 5.8 has given it a directory of its own.
std::string attribute(const procfs::Procfs& proc, const char* name) {
  return cat(::faccessat(proc.fd(), "self/attr/apparmor/current", F_OK, 0) == 0 ? "attr/apparmor/" : "attr/", name);
}

std::string of_thread(pid_t tid, const std::string& name) { return cat("task/", tid, "/", name); }

Result<void> check_label(const std::string& label, const std::string& where) {
  if (label.size() > kLongestLabel || label.find_first_of(std::string_view("\0\n", 2)) != std::string::npos)
    return fail(Error(Code::kImageCorrupt, cat("security label of ", where)).about(where));
  return {};
}

// In a process of its own, which has to be what the tasks are at that time: unconfined.
Result<void> try_label(const procfs::Procfs& proc, const std::string& label) {
  const pid_t child = ::fork();
  if (child < 0) return fail_sys("fork");
  if (child == 0) ::_exit(take_label(proc, label) ? 0 : errno > 0 && errno < 255 ? errno : EIO);
  int status = 0;
  pid_t got;
  do got = ::waitpid(child, &status, 0);
  while (got < 0 && errno == EINTR);
  const int error = got == child && WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
  if (error == 0) return {};
  const char* why = error == ENOENT ? "is not loaded on this host" : "cannot be taken here";
  return fail(Error(Code::kRestoreFailed, cat("the AppArmor profile \"", label, "\" of the images ", why,
                                              "; load it, or name another one with --lsm-profile apparmor:NAME"))
                  .about(label)
                  .with_errno(error));
}

// What --lsm-profile says; LXC gives the word of its configuration for a profile that it makes itself.
std::optional<std::string> new_name(const Options& options) {
  const std::string_view given = options.lsm_profile;
  const size_t colon = given.find(':');
  if (colon == std::string_view::npos || given.substr(colon + 1) == "generated") return std::nullopt;
  return std::string(given.substr(colon + 1) == "unconfined" ? "" : given.substr(colon + 1));
}

}  // namespace

bool has_apparmor() {
  const auto enabled = read_file_at(AT_FDCWD, "/sys/module/apparmor/parameters/enabled");
  return enabled && trim(*enabled) == "Y";
}

std::string parse_label(std::string_view text) {
  text = trim(text);
  if (text.ends_with(")"))
    if (const size_t mode = text.rfind(" ("); mode != std::string_view::npos) text = text.substr(0, mode);
  return std::string(text == "unconfined" ? "" : text);
}

std::string apparmor_label(const procfs::Procfs& proc, pid_t pid, pid_t tid) {
  if (!has_apparmor()) return {};
  const auto text = proc.text(pid, of_thread(tid, attribute(proc, "current")));
  return text ? parse_label(*text) : std::string();
}

bool take_label(const procfs::Procfs& proc, const std::string& label) {
  const std::string order = cat("changeprofile ", label.empty() ? "unconfined" : label);
  const auto written = write_file_at(proc.fd(), cat("thread-self/", attribute(proc, "current")), order);
  if (!written) errno = written.error().sys_errno();
  return written.has_value();
}

void find_label_obstacles(const procfs::Procfs& proc, const Process& p, const Options& options,
                          std::vector<Error>& obstacles) {
  auto obstacle = [&](const char* what, const std::string& label) {
    obstacles.push_back(
        Error(Code::kUnsupported, cat("pid ", p.pid, " (", p.stat.comm, ") ", what, "\"", trim(label), "\""))
            .about(cat("pid ", p.pid)));
  };
  // A user has no right to give labels. Without a module that labels tasks the file cannot be read (EINVAL).
  if (options.client || !has_apparmor()) {
    const auto label = proc.text(p.pid, "attr/current"), own = proc.text(::getpid(), "attr/current");
    if (label && own && *label != *own) return obstacle("has the security label ", *label);
    for (const char* name : {"exec", "fscreate", "keycreate", "sockcreate"})
      if (const auto next = proc.text(p.pid, cat("attr/", name));
          next && !trim(*next).empty() && trim(*next)[0] != '\0')
        return obstacle(cat("has the security attribute ", name, " ").c_str(), *next);
  }
}

Result<void> dump_label(const procfs::Procfs& proc, pid_t pid, pid_t tid, pb::creds_entry& creds) {
  if (!has_apparmor()) return {};
  // Before anything is lost: a file that cannot be read is an error.
  const auto label = parse_label(TRY(proc.text(pid, of_thread(tid, attribute(proc, "current")))));
  if (!label.empty()) creds.set_lsm_profile(label);
  return {};
}

NextLabelQuestion::NextLabelQuestion(remote::Batch& batch) : text_(batch.space(kLongestLabel)) {
  open_ = batch.add(__NR_openat, AT_FDCWD, batch.text("/proc/thread-self/attr/exec"),
                    O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0);  // whatever the task has there
  read_ = batch.add(__NR_read, batch.result_of(open_), text_, kLongestLabel);
}

int NextLabelQuestion::opened(const remote::Batch& batch) const {
  return batch.failed(open_) ? -1 : static_cast<int>(batch.result(open_));
}

std::string NextLabelQuestion::read(const remote::Batch& batch) const {
  if (batch.failed(open_) || batch.failed(read_) || batch.result(read_) == 0) return {};
  const std::string_view text(reinterpret_cast<const char*>(batch.bytes(text_)),
                              static_cast<size_t>(batch.result(read_)));
  const auto label = parse_label(text.substr(0, text.find('\0')));
  return label.empty() ? "unconfined" : label;
}

Result<void> plan_labels(const procfs::Procfs& proc, const Options& options, Snapshot& snapshot) {
  const auto renamed = new_name(options);
  const std::string own = apparmor_label(proc, ::getpid(), ::getpid());
  std::optional<std::string> roots;
  std::set<std::string> wanted;
  for (auto& task : snapshot.tasks) {
    for (size_t i = 0; i < task.threads.size() && !task.zombie; ++i) {
      const std::string where = cat("pid ", task.node.pid(), " of the images");
      auto& creds = *task.threads[i].mutable_thread_core()->mutable_creds();
      TRY(check_label(creds.lsm_profile(), where));
      if (!roots) roots = creds.lsm_profile();
      if (renamed && creds.lsm_profile() == *roots) creds.set_lsm_profile(*renamed);
      if (creds.lsm_profile() == own) creds.clear_lsm_profile();
      if (!creds.lsm_profile().empty()) wanted.insert(creds.lsm_profile());
      if (!task.extras[i] || !task.extras[i]->more().has_lsm_exec()) continue;
      if (renamed && renamed->empty() && !has_apparmor()) continue;
      const auto& next = task.extras[i]->more().lsm_exec();
      TRY(check_label(next, where));
      if (next.empty()) return fail(Error(Code::kImageCorrupt, cat("security label of ", where)).about(where));
      wanted.insert(next == "unconfined" ? "" : next);
    }
  }
  if (wanted.empty()) return {};
  const std::string& first = *wanted.rbegin();
  const auto inventory = TRY(snapshot.images->read<pb::inventory_entry>(image::Kind::kInventory, "inventory.img"));
  if (inventory.lsmtype() == pb::SELINUX)
    return fail(Error(Code::kUnsupported, cat("the images hold the SELinux label \"", first,
                                              "\", and SELinux labels are not "
                                              "restored; --lsm-profile selinux:unconfined leaves them out"))
                    .about(first));
  if (!has_apparmor())
    return fail(Error(Code::kKernelFeature, cat("the images hold the AppArmor profile \"", first,
                                                "\", and this kernel has no AppArmor; "
                                                "--lsm-profile apparmor:unconfined leaves it out"))
                    .about(first));
  if (options.into.pid)
    return fail(Error(Code::kUnsupported, cat("the AppArmor profile \"", first,
                                              "\" of the images does not go together "
                                              "with --into; --lsm-profile apparmor:unconfined leaves it out"))
                    .about(first));
  for (const auto& label : wanted) TRY(try_label(proc, label));
  return {};
}

Result<LabelOrders> LabelOrders::open(const procfs::Procfs& proc, remote::Runner& runner, pid_t tid, int proc_in_task,
                                      const pb::creds_entry& creds, const pb::task_extra* extra) {
  LabelOrders out;
  const bool exec = extra && extra->more().has_lsm_exec() && has_apparmor();
  if (!exec && creds.lsm_profile().empty()) return out;
  remote::Batch batch;
  auto add = [&](const char* name, std::string order) {
    batch.add(__NR_openat, proc_in_task, batch.text(cat("thread-self/", attribute(proc, name))), O_WRONLY | O_CLOEXEC,
              0);
    batch.must(cat("open ", attribute(proc, name)));
    out.orders_.push_back({-1, std::move(order)});
  };
  // That of the next program first: the profile may forbid to name it.
  if (exec) add("exec", cat("exec ", extra->more().lsm_exec()));
  if (!creds.lsm_profile().empty()) add("current", cat("changeprofile ", creds.lsm_profile()));
  TRY(runner.run_checked(batch, tid));
  for (size_t i = 0; i < out.orders_.size(); ++i) out.orders_[i].fd = static_cast<int>(batch.result(i));
  return out;
}

void LabelOrders::add(remote::Batch& batch) const {
  for (const auto& order : orders_) {
    batch.add(__NR_write, order.fd, batch.data(order.text.data(), order.text.size()), order.text.size());
    batch.must(order.text);
    batch.add(__NR_close, order.fd);
  }
}

}  // namespace stasis::tasks
