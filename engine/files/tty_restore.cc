// SPDX-License-Identifier: Apache-2.0
#include <asm/termbits.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/files/tty.h"

namespace stasis::files {
namespace {

// `tty`: either end.
Result<void> set_up_pair(int tty, const pb::tty_info_entry& info, const std::string& node) {
  if (info.has_termios()) {
    const auto& t = info.termios();
    struct termios term {};
    term.c_iflag = t.c_iflag(), term.c_oflag = t.c_oflag(), term.c_cflag = t.c_cflag(), term.c_lflag = t.c_lflag();
    term.c_line = static_cast<cc_t>(t.c_line());
    for (int i = 0; i < t.c_cc_size() && i < NCCS; ++i) term.c_cc[i] = static_cast<cc_t>(t.c_cc(i));
    if (::ioctl(tty, TCSETS, &term) < 0) return fail_sys("ioctl(TCSETS)");
  }
  if (info.has_winsize()) {
    const auto& w = info.winsize();
    const winsize size{static_cast<unsigned short>(w.ws_row()), static_cast<unsigned short>(w.ws_col()),
                       static_cast<unsigned short>(w.ws_xpixel()), static_cast<unsigned short>(w.ws_ypixel())};
    if (::ioctl(tty, TIOCSWINSZ, &size) < 0) return fail_sys("ioctl(TIOCSWINSZ)");
  }
  if (info.has_uid() && ::chown(node.c_str(), info.uid(), info.gid()) < 0) return fail_sys("chown", node);
  return {};
}

// As LXC and CRIU write it: st_rdev and st_dev in hexadecimal.
std::string external_key(uint64_t rdev, uint64_t dev) { return cat(hex(rdev).substr(2), ":", hex(dev).substr(2)); }

std::string inherit_key(const pb::tty_info_entry& info) {
  return cat("tty[", external_key(info.rdev(), info.dev()), "]");
}

}  // namespace

Result<void> check_external_ttys(const std::map<uint32_t, pb::tty_info_entry>& ttys, const Options& options) {
  for (const auto& [id, info] : ttys) {
    if (info.type() != pb::EXT_TTY) continue;
    const std::string key = inherit_key(info);
    const int fd = inherited_fd(options, key);
    if (fd < 0 && info.has_pty()) continue;  // a new one in the container's devpts will do
    if (fd < 0)
      return fail(Error(Code::kBadOption, cat("the terminal ", key, " of the images is outside the container; give ",
                                              "another with --inherit-fd 'fd[N]:", key, "'"))
                      .about(key));
    struct termios term {};
    if (::ioctl(fd, TCGETS, &term) < 0)
      return fail(Error(Code::kBadOption, cat("--inherit-fd fd[", fd, "]:", key, " is not a terminal")).about(key));
  }
  return {};
}

namespace {

// The client's terminal, opened anew: the flags of its own description are not the container's business. Where it is
// the console, by that name, which the container can find.
Result<Fd> restore_external(int given, const pb::tty_info_entry& info, int flags, RestoreEnv& env) {
  if (env.external_ttys.insert(info.id()).second) TRY(set_up_pair(given, info, cat("/proc/self/fd/", given)));
  struct stat theirs {
  }, console{};
  const bool same = ::fstat(given, &theirs) == 0 && ::stat("/dev/console", &console) == 0 &&
                    theirs.st_dev == console.st_dev && theirs.st_ino == console.st_ino;
  return open_at(AT_FDCWD, same ? "/dev/console" : cat("/proc/self/fd/", given), flags);
}

const pb::tty_info_entry* master_of(uint32_t index, const RestoreEnv& env) {
  for (const auto& [id, info] : env.ttys)
    if (is_master(info) && info.pty().index() == index) return &info;
  return nullptr;
}

Result<Fd> new_master(uint32_t index, bool inside, RestoreEnv& env) {
  // Programs open the one, which leads to the other; the other may be closed to users.
  if (inside)
    if (auto master = mounts::open_master(AT_FDCWD, "/dev/ptmx", index, env.masters_unused);
        master || master.error().sys_errno() != ENOENT)
      return master;
  return mounts::open_master(AT_FDCWD, "/dev/pts/ptmx", index, env.masters_unused);
}

std::string path_of(const pb::tty_info_entry& info) { return cat("/dev/pts/", info.pty().index()); }

// The first description of a terminal makes it. Its master is of the images, or goes to the client, or to the keeper.
Result<void> make_pair(const pb::tty_info_entry& info, RestoreEnv& env) {
  const uint32_t index = info.pty().index();
  if (!env.terminals.insert(index).second) return {};
  const std::string path = path_of(info);
  const bool inside = master_of(index, env) != nullptr, kept = info.type() == pb::EXT_TTY;
  if (!inside && !kept && !env.orphan_master)
    return fail(
        Error(Code::kUnsupportedFile, cat("nobody takes the other end of terminal ", path, " (no --console-socket)"))
            .about(path));
  auto& master = env.masters[index];
  if (!master.valid()) master = TRY(new_master(index, inside, env));
  // Through the master: a slave that is opened and closed again is a hang-up.
  TRY(set_up_pair(master.get(), info, path));
  if (inside) env.masters_given.insert(index);
  if (inside || kept) return {};
  TRY(env.orphan_master(master.get()));
  env.masters_given.insert(index);
  return {};
}

// A slave whose master is gone, of whatever number is free.
Result<Fd> make_dead(int flags, RestoreEnv& env) {
  std::set<uint32_t> wanted;
  for (const auto& [id, info] : env.ttys)
    if (info.has_pty() && !is_hung_up(info)) wanted.insert(info.pty().index());
  while (true) {
    Fd master = TRY(open_at(AT_FDCWD, "/dev/pts/ptmx", O_RDWR | O_NOCTTY));
    unsigned index = 0;
    const int unlock = 0;
    if (::ioctl(master.get(), TIOCGPTN, &index) < 0 || ::ioctl(master.get(), TIOCSPTLCK, &unlock) < 0)
      return fail_sys("ioctl", "/dev/pts/ptmx");
    if (wanted.contains(index)) {
      env.masters_unused.insert_or_assign(index, std::move(master));
      continue;
    }
    return open_at(AT_FDCWD, cat("/dev/pts/", index), flags);
  }
}

// A descriptor of the slave that belongs to the master; opened for now if no task has one.
Result<Fd> slave_of(uint32_t index) {
  return open_at(AT_FDCWD, cat("/dev/pts/", index), O_RDWR | O_NOCTTY | O_NONBLOCK);
}

Result<void> put_data(const pb::tty_info_entry& info, const std::string& data, RestoreEnv& env) {
  const uint32_t index = info.pty().index();
  const auto master = env.masters.find(index);
  if (master == env.masters.end()) return {};
  const Fd slave = TRY(slave_of(index));
  return is_master(info) ? put_output(slave.get(), data, path_of(info))
                         : put_input(slave.get(), master->second.get(), data, path_of(info));
}

Result<void> finish_master(const pb::tty_info_entry& info, RestoreEnv& env) {
  const int master = env.masters.at(info.pty().index()).get(), on = 1;
  const auto* manifest = env.manifest;
  for (int i = 0; manifest && i < manifest->tty_extras_size(); ++i)
    if (manifest->tty_extras(i).info_id() == info.id() && manifest->tty_extras(i).slave_closed())
      TRY(slave_of(info.pty().index()));
  if (info.packet_mode() && ::ioctl(master, TIOCPKT, &on) < 0) return fail_sys("ioctl(TIOCPKT)", path_of(info));
  if (info.exclusive() && ::ioctl(master, TIOCEXCL) < 0) return fail_sys("ioctl(TIOCEXCL)", path_of(info));
  if (info.locked() && ::ioctl(master, TIOCSPTLCK, &on) < 0) return fail_sys("ioctl(TIOCSPTLCK)", path_of(info));
  return {};
}

// A job gets the terminal of the shell that restores it: the engine's.
Result<Fd> terminal_of_shell(const pb::tty_info_entry& info, int flags, RestoreEnv& env) {
  struct termios term {};
  for (const int fd : {0, 1, 2}) {
    if (::ioctl(fd, TCGETS, &term) < 0) continue;
    const std::string path = cat("/proc/self/fd/", fd);
    pb::tty_info_entry settings = info;
    settings.clear_uid();  // it belongs to whom it belongs
    if (env.external_ttys.insert(info.id()).second) TRY(set_up_pair(fd, settings, path));
    return open_at(AT_FDCWD, path, flags);
  }
  return fail(
      Error(Code::kBadOption, "the images are those of a shell's job, and the engine has no terminal to give it")
          .about("--shell-job"));
}

}  // namespace

Result<Fd> restore_tty(const pb::file_entry& entry, RestoreEnv& env) {
  const auto at = env.ttys.find(entry.tty().tty_info_id());
  if (at == env.ttys.end())
    return fail(Code::kImageCorrupt, cat("tty-info.img: no terminal ", entry.tty().tty_info_id()));
  const auto& info = at->second;
  const int flags = (static_cast<int>(entry.tty().flags()) & (O_ACCMODE | static_cast<int>(kSettableFlags))) | O_NOCTTY;
  if (info.type() == pb::CTTY) return open_at(AT_FDCWD, "/dev/tty", flags);
  if (info.type() == pb::EXT_TTY)
    if (const int given = inherited_fd(env.options, inherit_key(info)); given >= 0)
      return restore_external(given, info, flags, env);
  if ((info.type() != pb::PTY && info.type() != pb::EXT_TTY) || !info.has_pty())
    return fail(Code::kUnsupportedFile,
                cat("terminal ", entry.tty().tty_info_id(), " is of a kind that cannot be restored yet"));
  if (is_hung_up(info)) return make_dead(flags, env);
  if (env.options.shell_job && info.type() == pb::PTY && !master_of(info.pty().index(), env))
    return terminal_of_shell(info, flags, env);
  TRY(make_pair(info, env));
  if (!is_master(info)) return open_at(AT_FDCWD, path_of(info), flags);
  Fd fd = TRY(dup_at_least(env.masters.at(info.pty().index()).get()));
  TRY(set_flags(fd.get(), entry.tty().flags(), path_of(info)));
  return fd;
}

// When both ends are there: data, then what keeps others out.
Result<void> connect_ttys(RestoreEnv& env) {
  for (const auto& data : env.tty_data)
    if (const auto info = env.ttys.find(data.tty_id()); info != env.ttys.end() && info->second.has_pty())
      TRY_CTX(put_data(info->second, data.data(), env), path_of(info->second));
  std::set<uint32_t> seen;
  for (const auto& [id, file] : env.files) {
    if (!file.has_tty() || !seen.insert(file.tty().tty_info_id()).second) continue;
    const auto& info = env.ttys.at(file.tty().tty_info_id());
    if (is_master(info)) {
      TRY(finish_master(info, env));
    } else if (info.type() == pb::PTY && info.exclusive() && ::ioctl(env.numbers.at(id), TIOCEXCL) < 0) {
      return fail_sys("ioctl(TIOCEXCL)", path_of(info));
    }
  }
  return {};
}

Result<void> check_tty_image(const pb::file_entry& entry, const FileEntries&, const image::Reader&) {
  return entry.has_tty() ? Result<void>() : corrupt_file(entry.id(), "is no terminal");
}

Result<void> check_ttys(const std::map<uint32_t, pb::tty_info_entry>& ttys,
                        const std::map<uint32_t, pb::file_entry>& files) {
  std::map<uint32_t, uint32_t> open;  // files by terminal
  std::set<uint32_t> masters;
  for (const auto& [id, file] : files) {
    if (!file.has_tty()) continue;
    const uint32_t tty = file.tty().tty_info_id();
    if (!ttys.contains(tty)) return corrupt_file(id, cat("is a terminal ", tty, " that is not in tty-info.img"));
    if (++open[tty] > 1 && is_master(ttys.at(tty))) return corrupt_file(id, "is a master that is open already");
    if (is_master(ttys.at(tty)) && !masters.insert(ttys.at(tty).pty().index()).second)
      return corrupt_file(id, "is a second master of its terminal");
  }
  return {};
}

}  // namespace stasis::files
