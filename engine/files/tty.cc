// SPDX-License-Identifier: Apache-2.0
// Pseudo terminals, pts(4), ioctl_tty(2): both ends, or slaves whose master is outside (a container's console), and the
// /dev/tty of a session. On restore a new pair is made in the devpts with the same index; a master that was outside
// goes to the client (orphan-pts-master). A terminal that the client names, --external tty[RDEV:DEV], is given by it
// again,
// --inherit-fd fd[N]:tty[RDEV:DEV], and the others of such a container get masters that a keeper holds.
#include "engine/files/tty.h"

#include <asm/termbits.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/procfs/fdinfo.h"

namespace stasis::files {
namespace {

bool is_slave(const struct stat& st) {
  return S_ISCHR(st.st_mode) && major(st.st_rdev) >= 136 && major(st.st_rdev) <= 143;
}
bool is_current(const struct stat& st) { return S_ISCHR(st.st_mode) && st.st_rdev == makedev(5, 0); }

bool is_master(const struct stat& st) { return S_ISCHR(st.st_mode) && st.st_rdev == makedev(5, 2); }

bool matches(const Candidate& c) {
  return !(c.info.flags & O_PATH) && (is_slave(c.st) || is_current(c.st) || is_master(c.st));
}

uint32_t index_of(dev_t rdev) { return (major(rdev) - 136) * 256 + minor(rdev); }

// tty_nr of /proc/PID/stat: include/linux/kdev_t.h new_encode_dev().
int tty_nr(dev_t rdev) {
  return static_cast<int>((minor(rdev) & 0xff) | (major(rdev) << 8) | ((minor(rdev) & ~0xffu) << 12));
}

int tty_nr_of(uint32_t index) { return tty_nr(makedev(136 + index / 256, index % 256)); }

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

constexpr long kDevptsMagic = 0x1cd1;

// The devpts that a master's slave is in: its own, or what lies beside the node it was opened by, as the kernel finds
// it (fs/devpts/inode.c devpts_mntget).
std::optional<dev_t> devpts_of(int fd, const struct stat& st, const std::string& link, const DumpEnv& env) {
  struct statfs fs {};
  if (::fstatfs(fd, &fs) == 0 && fs.f_type == kDevptsMagic) return st.st_dev;
  const auto pts = link.substr(1, link.rfind('/')) + "pts";
  struct stat beside {};
  if (link.empty() || ::fstatat(env.root_dir.get(), pts.c_str(), &beside, 0) < 0) return std::nullopt;
  return beside.st_dev;
}

// Masters that tasks of the container have open: devpts and index.
const std::set<std::pair<dev_t, uint32_t>>& masters_inside(const DumpEnv& env) {
  if (env.tty_masters) return *env.tty_masters;
  auto& found = env.tty_masters.emplace();
  for (const auto& [pid, npid] : env.pids) {
    const auto fds = env.proc.fds(pid);
    if (!fds) continue;
    for (const int fd : *fds) {
      const auto link = env.proc.link(pid, cat("fd/", fd));
      if (!link || !link->ends_with("ptmx")) continue;
      const auto file = env.proc.open_file(pid, cat("fd/", fd), O_PATH);
      const auto info = env.proc.fdinfo(pid, fd);
      struct stat st {};
      if (!file || !info || ::fstat(file->get(), &st) < 0 || !is_master(st)) continue;
      const auto index = procfs::number(*info, "tty-index");
      const auto devpts = devpts_of(file->get(), st, *link, env);
      if (index && devpts) found.emplace(*devpts, static_cast<uint32_t>(*index));
    }
  }
  return found;
}

bool has_master_inside(const Candidate& c, const DumpEnv& env) {
  return is_slave(c.st) && masters_inside(env).contains({c.st.st_dev, index_of(c.st.st_rdev)});
}

// Its master was closed: drivers/tty/tty_io.c hung_up_tty_fops.
bool is_dead(const Candidate& c) {
  struct termios term {};
  return is_slave(c.st) && ::ioctl(c.copy.get(), TCGETS, &term) < 0 && errno == EIO;
}

bool can_be_made_again(dev_t devpts, const DumpEnv& env) {
  if (!env.mounts) return true;
  return std::ranges::any_of(env.mounts->of_device(mounts::kernel_dev(major(devpts), minor(devpts))),
                             [](const auto* m) { return m->root == "/"; });
}

Result<void> check_pair(const Candidate& c, dev_t devpts, const DumpEnv& env) {
  if (!can_be_made_again(devpts, env)) return unsupported(c, "is a terminal of the host");
  int discipline = 0;
  if (::ioctl(c.copy.get(), TIOCGETD, &discipline) == 0 && discipline != 0)
    return unsupported(c, cat("is a terminal with line discipline ", discipline));
  return {};
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  if (is_master(c.st)) {
    const auto devpts = devpts_of(c.copy.get(), c.st, c.link, env);
    if (!devpts) return unsupported(c, "is the master of a terminal in an unknown devpts");
    return check_pair(c, *devpts, env);
  }
  if (!is_named(c, env.options) && is_dead(c)) return {};
  if (!is_named(c, env.options) && has_master_inside(c, env)) {
    TRY(owner_of(c, env));
    return check_pair(c, c.st.st_dev, env);
  }
  if (is_current(c.st))
    if (const auto stat = env.proc.stat(c.pid); stat) {
      if (stat->tty_nr == 0)
        return fail(Error(Code::kUnsupportedFile, cat(c.name(), " is a terminal that is not its session's any more"))
                        .about(c.name()));
      if (std::ranges::any_of(masters_inside(env), [&](const auto& m) { return tty_nr_of(m.second) == stat->tty_nr; }))
        return {};
    }
  if (is_named(c, env.options)) return {};
  if (is_slave(c.st) && !is_external(c, env.options)) TRY(owner_of(c, env));
  if (env.options.shell_job) return {};  // the shell's, here and at the restore
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
    if (!stat || !status || stat->tty_nr != tty_nr(rdev)) continue;
    // The shell of a job is not in the container, but the job may be what it has in the foreground.
    const bool job = env.options.shell_job && !env.pids.contains(stat->session);
    if (stat->session != pid && !job) continue;
    if (!job) info.set_sid(static_cast<uint32_t>(status->ns_sid.back()));
    for (const auto& [other, npid_of_other] : env.pids)
      if (const auto s = env.proc.status(other); s && other == stat->tpgid)
        info.set_pgrp(static_cast<uint32_t>(s->ns_pid.back()));
    return {};
  }
  return {};
}

// What either end of a pair tells.
Result<void> dump_pair(const Candidate& c, pb::tty_info_entry& info) {
  struct termios term {
  }, locked{};
  winsize size{};
  if (::ioctl(c.copy.get(), TCGETS, &term) < 0) return fail_sys("ioctl(TCGETS)", c.name());
  if (::ioctl(c.copy.get(), TIOCGLCKTRMIOS, &locked) < 0) locked = {};
  if (::ioctl(c.copy.get(), TIOCGWINSZ, &size) < 0) return fail_sys("ioctl(TIOCGWINSZ)", c.name());
  *info.mutable_termios() = termios_of(term);
  *info.mutable_termios_locked() = termios_of(locked);
  auto& w = *info.mutable_winsize();
  w.set_ws_row(size.ws_row), w.set_ws_col(size.ws_col), w.set_ws_xpixel(size.ws_xpixel),
      w.set_ws_ypixel(size.ws_ypixel);
  return {};
}

// Data in the terminal, for tty-data.img.
void add_data(std::string data, uint32_t id, DumpOutput& out) {
  if (data.empty()) return;
  auto& entry = out.tty_data.emplace_back();
  entry.set_tty_id(id);
  entry.set_data(std::move(data));
}

Result<void> dump_master(const Candidate& c, const DumpEnv& env, pb::tty_info_entry& info, DumpOutput& out) {
  const auto devpts = devpts_of(c.copy.get(), c.st, c.link, env);
  unsigned index = 0;
  if (!devpts || ::ioctl(c.copy.get(), TIOCGPTN, &index) < 0) return fail_sys("ioctl(TIOCGPTN)", c.name());
  info.set_type(pb::PTY);
  info.set_rdev(kPtmx);
  info.set_dev(static_cast<uint32_t>(*devpts));
  info.mutable_pty()->set_index(index);
  info.set_sid(0), info.set_pgrp(0);
  int locked = 0, packets = 0, exclusive = 0;
  (void)::ioctl(c.copy.get(), TIOCGPTLCK, &locked);
  (void)::ioctl(c.copy.get(), TIOCGPKT, &packets);
  (void)::ioctl(c.copy.get(), TIOCGEXCL, &exclusive);
  info.set_locked(locked != 0), info.set_packet_mode(packets != 0), info.set_exclusive(exclusive != 0);
  TRY(dump_pair(c, info));
  Candidate node;
  node.link = c.link;
  if (::fstatat(env.root_dir.get(), cat("dev/pts/", index).c_str(), &node.st, 0) == 0 && node.st.st_dev == *devpts)
    if (const auto owner = owner_of(node, env)) info.set_uid(owner->uid), info.set_gid(owner->gid);
  // Hung up: every slave was closed. Before the first is opened a reader waits.
  pollfd item{c.copy.get(), 0, 0};
  if (::poll(&item, 1, 0) >= 0 && (item.revents & POLLHUP)) {
    pb::tty_extra extra;
    extra.set_info_id(info.id());
    extra.set_slave_closed(true);
    out.images->add_tty_extra(extra);
  }
  add_data(TRY(peek_output(c.copy.get(), c.name())), info.id(), out);
  return {};
}

Result<void> dump_info(const Candidate& c, const DumpEnv& env, pb::tty_info_entry& info) {
  const bool inside = has_master_inside(c, env);
  const bool slave = is_slave(c.st), external = !inside && is_external(c, env.options);
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
  TRY(dump_pair(c, info));
  if (inside || !external || on_own_devpts(c, env)) info.mutable_pty()->set_index(index_of(c.st.st_rdev));
  const auto owner = owner_of(c, env);
  if (!owner && !external) return fail(owner.error());
  if (owner) info.set_uid(owner->uid), info.set_gid(owner->gid);  // else it stays with whom the client's belongs to
  return find_session(env, c.st.st_rdev, info);
}

constexpr uint32_t kMasters = 1u << 30, kDead = 3u << 29;  // above every device number

// The image's own number for the terminal: the device number serves within the container's devpts.
uint32_t info_id(const Candidate& c, const DumpEnv& env, const DumpOutput& out) {
  if (is_master(c.st) || is_dead(c)) {
    // A master has one open file, and of a dead terminal nothing is left that open files could share.
    uint32_t id = is_master(c.st) ? kMasters : kDead;
    while (out.ttys.contains(id)) ++id;
    return id;
  }
  if (has_master_inside(c, env) || !is_external(c, env.options))
    return static_cast<uint32_t>(major(c.st.st_rdev) << 20 | minor(c.st.st_rdev));
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
  if (is_master(c.st)) return dump_master(c, env, info, out);
  if (is_dead(c)) {
    info.set_type(pb::PTY), info.set_rdev(static_cast<uint32_t>(major(c.st.st_rdev) << 20 | minor(c.st.st_rdev)));
    info.set_locked(false), info.set_exclusive(false), info.set_packet_mode(false), info.set_sid(0), info.set_pgrp(0);
    info.mutable_pty()->set_index(index_of(c.st.st_rdev));
    return {};
  }
  TRY(dump_info(c, env, info));
  if (has_master_inside(c, env)) add_data(TRY(peek_input(c.copy.get(), c.name())), id, out);
  return {};
}

}  // namespace

const FileKind kTty = {.name = "terminal",
                       .type = pb::TTY,
                       .matches = matches,
                       .check = check,
                       .dump = dump,
                       .restore = restore_tty,
                       .connect = connect_ttys,
                       .check_image = check_tty_image};

}  // namespace stasis::files
