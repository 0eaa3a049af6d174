// SPDX-License-Identifier: Apache-2.0
// The half of validate.h that looks at the host.
#include "engine/cli/validate.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "cgroups/root_option.h"
#include "engine/base/io.h"
#include "engine/base/strings.h"
#include "engine/procfs/procfs.h"
#include "engine/tasks/labels.h"

namespace stasis::cli {
namespace {

Result<Fd> open_directory(const std::string& path, std::string_view what) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_sys(Code::kImageDir, cat("open the ", what, " directory"), path);
  return fd;
}

// A number in the client's descriptor table. Opening it anew gives us our own file offset.
Result<Fd> open_peer_directory(pid_t peer, int number, std::string_view what) {
  if (peer <= 0) return fail(Code::kProtocol, "the client's process id is not known");
  const auto procfs = TRY(procfs::Procfs::open());
  auto fd = procfs.open_file(peer, cat("fd/", number), O_RDONLY | O_DIRECTORY);
  if (!fd)
    return fail(std::move(fd)
                    .error()
                    .context(cat("the ", what, " directory is descriptor ", number, " of pid ", peer))
                    .with_code(Code::kImageDir));
  return std::move(*fd);
}

Result<void> check_writable(const Fd& dir, const std::string& path, std::string_view what) {
  if (faccessat(dir.get(), ".", W_OK | X_OK, AT_EACCESS) != 0)
    return fail_sys(Code::kImageDir, cat("write to the ", what, " directory"), path);
  return {};
}

bool is_executable_file(const std::string& path) {
  struct stat st {};
  return stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) &&
         faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) == 0;
}

Result<void> check_inherited(const Options& options) {
  for (const auto& inherit : options.inherit_fds) {
    const int flags = fcntl(inherit.fd, F_GETFD);
    if (flags < 0)
      return fail(
          Error(Code::kBadOption, cat("inherit-fd fd[", inherit.fd, "]:", inherit.key, ": not an open descriptor"))
              .about(cat("fd ", inherit.fd)));
    // It is meant for the tasks, not for the supervisor that we may become.
    if (inherit.fd > 2) fcntl(inherit.fd, F_SETFD, flags | FD_CLOEXEC);
  }
  return {};
}

Result<void> check_root(Options& options) {
  if (options.root.empty()) return {};
  const std::unique_ptr<char, void (*)(void*)> real(realpath(options.root.c_str(), nullptr), free);
  if (!real) return fail_sys(Code::kMountTarget, "find the new root", options.root);
  struct stat st {};
  if (stat(real.get(), &st) != 0) return fail_sys(Code::kMountTarget, "find the new root", options.root);
  if (!S_ISDIR(st.st_mode))
    return fail(
        Error(Code::kMountTarget, cat("the new root ", options.root, " is not a directory")).about(options.root));
  options.root = real.get();
  return {};
}

Result<void> check_cgroups(const Options& options, const Env& env) {
  if (options.cgroup_mode == CgroupMode::kIgnore || options.cgroup_roots.empty()) return {};
  const auto hierarchies = TRY(cgroups::read_hierarchies());
  return cgroups::check_cgroup_roots(options.cgroup_roots, hierarchies, env.door == Door::kStasis);
}

Result<void> check_freezer(const Options& options) {
  if (options.freeze_cgroup.empty()) return {};
  struct stat st {};
  if (stat(options.freeze_cgroup.c_str(), &st) != 0)
    return fail_sys(Code::kFreezer, "find the freezer cgroup", options.freeze_cgroup);
  if (!S_ISDIR(st.st_mode))
    return fail(Error(Code::kFreezer, cat(options.freeze_cgroup, " is not a directory")).about(options.freeze_cgroup));
  return {};
}

// LXC names its AppArmor profile even where the kernel has none, and there is nothing to lose then. That labels are to
// be left out is always possible.
Result<void> check_lsm(Options& options) {
  const auto& given = options.lsm_profile;
  if (given.empty() || given.ends_with(":unconfined")) return {};
  const bool apparmor = given.starts_with("apparmor:");
  const bool absent =
      apparmor ? !tasks::has_apparmor() : given.starts_with("selinux:") && access("/sys/fs/selinux/enforce", F_OK) != 0;
  if (!absent && !apparmor)
    return fail(
        Error(Code::kUnsupportedOption, cat("--lsm-profile ", given, " cannot be applied yet")).about("--lsm-profile"));
  if (!absent) return {};
  log::warning("lsm-profile ", given, ": this kernel has no such security module, ignoring");
  options.lsm_profile.clear();
  return {};
}

Result<void> check_restore(const Env& env, Options& options) {
  TRY(check_inherited(options));
  TRY(check_root(options));
  if (!options.exec_cmd.empty()) {
    // Better to know now than after the tree runs. The words stay as given: argv[0] is the command's own business.
    (void)TRY(find_executable(options.exec_cmd[0]));
  }
  if (!options.pidfile.empty() && faccessat(AT_FDCWD, options.pidfile.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0)
    return fail(Error(Code::kBadOption, cat("pidfile ", options.pidfile, " exists already")).about(options.pidfile));
  TRY(check_lsm(options));
  return check_cgroups(options, env);
}

}  // namespace

Result<std::string> find_executable(const std::string& command) {
  const auto refuse = [&](std::string_view why) {
    return fail(Error(Code::kBadSupervisor, cat("the supervisor command ", command, " ", why)).about(command));
  };
  if (command.empty()) return refuse("is empty");
  if (command.find('/') != std::string::npos) {
    if (is_executable_file(command)) return command;
    return refuse(access(command.c_str(), F_OK) == 0 ? "is not an executable file" : "does not exist");
  }
  const char* path = getenv("PATH");
  for (const auto dir : split(path ? path : "/bin:/usr/bin", ':')) {
    const std::string candidate = cat(dir.empty() ? "." : dir, "/", command);
    if (is_executable_file(candidate)) return candidate;
  }
  return refuse("is not found on PATH");
}

Result<Directories> open_directories(const pb::criu_opts& opts, const Env& env) {
  Directories dirs;
  if (opts.images_dir().find('\0') != std::string::npos || opts.stasis_work_dir().find('\0') != std::string::npos)
    return fail(Code::kBadOption, "a directory name contains a NUL byte");
  if (env.door == Door::kRpc && opts.images_dir_fd() >= 0) {
    dirs.images = TRY(open_peer_directory(env.peer, opts.images_dir_fd(), "images"));
    dirs.images_path = cat("descriptor ", opts.images_dir_fd(), " of pid ", env.peer);
  } else if (!opts.images_dir().empty()) {
    dirs.images = TRY(open_directory(opts.images_dir(), "images"));
    dirs.images_path = opts.images_dir();
  } else if (env.door == Door::kCriu) {
    dirs.images = TRY(open_directory(".", "images"));
    dirs.images_path = ".";
  } else {
    return fail(Code::kBadOption, env.door == Door::kRpc ? "the request names no images directory"
                                                         : "say where the images are: --images-dir DIR");
  }
  if (env.action == Action::kDump) TRY(check_writable(dirs.images, dirs.images_path, "images"));
  std::string work_path = dirs.images_path;
  if (!opts.stasis_work_dir().empty()) {
    work_path = opts.stasis_work_dir();
    dirs.work = TRY(open_directory(work_path, "work"));
  } else if (env.door == Door::kRpc && opts.has_work_dir_fd() && opts.work_dir_fd() >= 0) {
    work_path = cat("descriptor ", opts.work_dir_fd(), " of pid ", env.peer);
    dirs.work = TRY(open_peer_directory(env.peer, opts.work_dir_fd(), "work"));
  } else {
    dirs.work = TRY(open_at(dirs.images.get(), ".", O_RDONLY | O_DIRECTORY));
  }
  return dirs;
}

Result<Options> validate(const pb::criu_opts& opts, const Env& env, Directories dirs) {
  Options options = TRY(convert(opts, env));
  options.images_dir = std::move(dirs.images);
  options.work_dir = std::move(dirs.work);
  options.images_path = std::move(dirs.images_path);
  if (!options.action_script.empty() && !is_executable_file(options.action_script))
    return fail(Error(Code::kBadOption, cat("the action script ", options.action_script, " is not an executable file"))
                    .about(options.action_script));
  if (env.action == Action::kRestore) {
    TRY(check_restore(env, options));
    return options;
  }
  if (kill(options.pid, 0) != 0 && errno == ESRCH)
    return fail(Error(Code::kNoContainer, cat("there is no process ", options.pid))
                    .about(cat("pid ", options.pid))
                    .with_errno(ESRCH));
  TRY(check_freezer(options));
  TRY(check_cgroups(options, env));
  return options;
}

Result<Options> validate(const pb::criu_opts& opts, const Env& env) {
  return validate(opts, env, TRY(open_directories(opts, env)));
}

}  // namespace stasis::cli
