// SPDX-License-Identifier: Apache-2.0
// Pseudo terminal slaves whose master is outside (a container's console), pts(4), and the
// /dev/tty of such a session. On restore a new pair is made in the container's devpts with
// the same index; the master goes to the client (orphan-pts-master). A terminal that the client
// names, --external tty[RDEV:DEV], is given by it again, --inherit-fd fd[N]:tty[RDEV:DEV], and the
// others of such a container get masters that a keeper holds. ioctl_tty(2).
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

namespace stasis::files {
namespace {

bool is_slave(const struct stat& st) {
  return S_ISCHR(st.st_mode) && major(st.st_rdev) >= 136 && major(st.st_rdev) <= 143;
}
bool is_current(const struct stat& st) { return S_ISCHR(st.st_mode) && st.st_rdev == makedev(5, 0); }

bool matches(const Candidate& c) { return !(c.info.flags & O_PATH) && (is_slave(c.st) || is_current(c.st)); }

uint32_t index_of(dev_t rdev) { return (major(rdev) - 136) * 256 + minor(rdev); }

// tty_nr of /proc/PID/stat: include/linux/kdev_t.h new_encode_dev().
int tty_nr(dev_t rdev) {
  return static_cast<int>((minor(rdev) & 0xff) | (major(rdev) << 8) | ((minor(rdev) & ~0xffu) << 12));
}

// As LXC and CRIU write it: st_rdev and st_dev in hexadecimal.
std::string external_key(uint64_t rdev, uint64_t dev) { return cat(hex(rdev).substr(2), ":", hex(dev).substr(2)); }

bool is_named(const Candidate& c, const Options& options) {
  const std::string key = external_key(c.st.st_rdev, c.st.st_dev);
  return std::ranges::any_of(options.externals, [&](const auto& e) { return e.kind == "tty" && e.key == key; });
}

// LXC names the console alone, and holds the masters of the other terminals too.
bool is_external(const Candidate& c, const Options& options) {
  if (!is_slave(c.st)) return is_named(c, options);
  return is_named(c, options) ||
         (!options.orphan_pts_master &&
          std::ranges::any_of(options.externals, [](const auto& e) { return e.kind == "tty"; }));
}

// Its devpts goes with the container, so a new one can have the same terminals.
bool on_own_devpts(const Candidate& c, const DumpEnv& env) {
  if (!env.mounts || !is_slave(c.st)) return false;
  return std::ranges::any_of(env.mounts->of_device(mounts::kernel_dev(major(c.st.st_dev), minor(c.st.st_dev))),
                             [](const auto* m) { return m->root == "/"; });
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  if (is_current(c.st))
    if (const auto stat = env.proc.stat(c.pid); stat && stat->tty_nr == 0)
      return fail(Error(Code::kUnsupportedFile, cat(c.name(), " is a terminal that is not its session's any more"))
                      .about(c.name()));
  if (is_named(c, env.options)) return {};
  if (is_slave(c.st) && !is_external(c, env.options)) TRY(owner_of(c, env));
  const bool others = std::ranges::any_of(env.options.externals, [](const auto& e) { return e.kind == "tty"; });
  if (!env.options.orphan_pts_master && !others)
    return fail(Error(Code::kUnsupportedFile, cat(c.name(), " is a terminal whose other end is outside the container"))
                    .about(c.name()));
  if (is_slave(c.st) && env.mounts && !env.mounts->find(c.info.mnt_id) && !on_own_devpts(c, env))
    return fail(Error(Code::kOutsideFile, cat(c.name(), " is a terminal of the host")).about(c.name()));
  return {};
}

pb::termios_entry termios_of(const struct termios& t) {
  pb::termios_entry out;
  out.set_c_iflag(t.c_iflag), out.set_c_oflag(t.c_oflag), out.set_c_cflag(t.c_cflag), out.set_c_lflag(t.c_lflag);
  out.set_c_line(t.c_line), out.set_c_ispeed(0), out.set_c_ospeed(0);
  for (auto cc : t.c_cc) out.add_c_cc(cc);
  return out;
}

// The session that has it as its controlling terminal, by asking every process of the container.
Result<void> find_session(const DumpEnv& env, dev_t rdev, pb::tty_info_entry& info) {
  for (const auto& [pid, npid] : env.pids) {
    const auto stat = env.proc.stat(pid);
    const auto status = env.proc.status(pid);
    if (!stat || !status || stat->tty_nr != tty_nr(rdev) || stat->session != pid) continue;
    info.set_sid(static_cast<uint32_t>(status->ns_sid.back()));
    for (const auto& [other, npid_of_other] : env.pids)
      if (const auto s = env.proc.status(other); s && other == stat->tpgid)
        info.set_pgrp(static_cast<uint32_t>(s->ns_pid.back()));
    return {};
  }
  return {};
}

Result<void> dump_info(const Candidate& c, const DumpEnv& env, pb::tty_info_entry& info) {
  const bool slave = is_slave(c.st), external = is_external(c, env.options);
  info.set_type(external ? pb::EXT_TTY : slave ? pb::PTY : pb::CTTY);
  info.set_locked(false), info.set_packet_mode(false), info.set_sid(0), info.set_pgrp(0);
  int exclusive = 0;
  (void)::ioctl(c.copy.get(), TIOCGEXCL, &exclusive);
  info.set_exclusive(exclusive != 0);
  info.set_rdev(static_cast<uint32_t>(major(c.st.st_rdev) << 20 | minor(c.st.st_rdev)));
  if (external) {
    info.set_rdev(static_cast<uint32_t>(c.st.st_rdev));
    info.set_dev(static_cast<uint32_t>(c.st.st_dev));
  } else if (!slave) {
    return {};
  }
  struct termios term {};
  winsize size{};
  if (::ioctl(c.copy.get(), TCGETS, &term) < 0) return fail_sys("ioctl(TCGETS)", c.name());
  if (::ioctl(c.copy.get(), TIOCGWINSZ, &size) < 0) return fail_sys("ioctl(TIOCGWINSZ)", c.name());
  *info.mutable_termios() = termios_of(term);
  *info.mutable_termios_locked() = termios_of({});
  auto& w = *info.mutable_winsize();
  w.set_ws_row(size.ws_row), w.set_ws_col(size.ws_col), w.set_ws_xpixel(size.ws_xpixel),
      w.set_ws_ypixel(size.ws_ypixel);
  if (!external || on_own_devpts(c, env)) info.mutable_pty()->set_index(index_of(c.st.st_rdev));
  const auto owner = owner_of(c, env);
  if (!owner && !external) return fail(owner.error());
  if (owner) info.set_uid(owner->uid), info.set_gid(owner->gid);  // else it stays with whom the client's belongs to
  return find_session(env, c.st.st_rdev, info);
}

// The image's own number for the terminal: the device number serves within the container's devpts.
uint32_t info_id(const Candidate& c, const DumpEnv& env, const DumpOutput& out) {
  if (!is_external(c, env.options)) return static_cast<uint32_t>(major(c.st.st_rdev) << 20 | minor(c.st.st_rdev));
  uint32_t id = 1u << 31;  // above every device number
  for (const auto& [known, info] : out.ttys) {
    if (info.type() != pb::EXT_TTY) continue;
    if (info.rdev() == c.st.st_rdev && info.dev() == c.st.st_dev) return known;
    id = known + 1;
  }
  return id;
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  entry.set_type(pb::TTY);
  auto& tty = *entry.mutable_tty();
  tty.set_id(entry.id());
  tty.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  set_no_owner(tty.mutable_fown());
  const uint32_t id = info_id(c, env, out);
  tty.set_tty_info_id(id);
  if (out.ttys.contains(id)) return {};
  auto& info = out.ttys[id];
  info.set_id(id);
  return dump_info(c, env, info);
}

Result<void> set_up_pair(int slave, const pb::tty_info_entry& info) {
  if (info.has_termios()) {
    const auto& t = info.termios();
    struct termios term {};
    term.c_iflag = t.c_iflag(), term.c_oflag = t.c_oflag(), term.c_cflag = t.c_cflag(), term.c_lflag = t.c_lflag();
    term.c_line = static_cast<cc_t>(t.c_line());
    for (int i = 0; i < t.c_cc_size() && i < NCCS; ++i) term.c_cc[i] = static_cast<cc_t>(t.c_cc(i));
    if (::ioctl(slave, TCSETS, &term) < 0) return fail_sys("ioctl(TCSETS)");
  }
  if (info.has_winsize()) {
    const auto& w = info.winsize();
    const winsize size{static_cast<unsigned short>(w.ws_row()), static_cast<unsigned short>(w.ws_col()),
                       static_cast<unsigned short>(w.ws_xpixel()), static_cast<unsigned short>(w.ws_ypixel())};
    if (::ioctl(slave, TIOCSWINSZ, &size) < 0) return fail_sys("ioctl(TIOCSWINSZ)");
  }
  if (info.has_uid() && ::fchown(slave, info.uid(), info.gid()) < 0) return fail_sys("fchown", "terminal");
  return {};
}

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
  if (env.external_ttys.insert(info.id()).second) TRY(set_up_pair(given, info));
  struct stat theirs {
  }, console{};
  const bool same = ::fstat(given, &theirs) == 0 && ::stat("/dev/console", &console) == 0 &&
                    theirs.st_dev == console.st_dev && theirs.st_ino == console.st_ino;
  return open_at(AT_FDCWD, same ? "/dev/console" : cat("/proc/self/fd/", given), flags);
}

// The first description of a terminal makes it. Its master goes to the client, or to the keeper.
Result<void> make_pair(const pb::tty_info_entry& info, const std::string& path, RestoreEnv& env) {
  const uint32_t index = info.pty().index();
  if (!env.terminals.insert(index).second) return {};
  const bool kept = info.type() == pb::EXT_TTY;
  if (!kept && !env.orphan_master)
    return fail(
        Error(Code::kUnsupportedFile, cat("nobody takes the other end of terminal ", path, " (no --console-socket)"))
            .about(path));
  auto& master = env.masters[index];
  if (!master.valid()) master = TRY(mounts::open_master(AT_FDCWD, "/dev/pts/ptmx", index, env.masters_unused));
  Fd slave = TRY(open_at(AT_FDCWD, path, O_RDWR | O_NOCTTY));
  TRY(set_up_pair(slave.get(), info));
  if (kept) return {};
  TRY(env.orphan_master(master.get()));
  env.masters_given.insert(index);
  return {};
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  if (!entry.has_tty()) return fail(Code::kImageCorrupt, cat("files.img: file ", entry.id(), " is no terminal"));
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
  const std::string path = cat("/dev/pts/", info.pty().index());
  TRY(make_pair(info, path, env));
  return open_at(AT_FDCWD, path, flags);
}

}  // namespace

const FileKind kTty = {"terminal (pty slave)", pb::TTY, matches, check, dump, restore};

}  // namespace stasis::files
