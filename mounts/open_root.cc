// SPDX-License-Identifier: Apache-2.0
// Reaching the root of one mount: open_tree(2) without AT_RECURSIVE leaves submounts behind, statx(2) says
// which mount a descriptor is on.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"
#include "mounts/content.h"
#include "mounts/sources.h"

namespace stasis::mounts {
namespace {

#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x1000
#endif

std::unexpected<Error> gone(const Mount& mount, std::string why) {
  return fail(Error(Code::kUnsupportedMount, std::move(why)).about(describe(mount)));
}

// In a private copy of the namespace mount ids are new, so there `mnt_id` is not compared, only the device.
Result<Fd> open_at_mountpoint(const Mount& mount, bool same_namespace) {
  Fd place = TRY(open_at(AT_FDCWD, mount.mountpoint, O_PATH | O_NOFOLLOW));
  struct statx sx;
  if (statx(place.get(), "", AT_EMPTY_PATH, STATX_MNT_ID | STATX_BASIC_STATS, &sx) != 0)
    return fail_sys("statx", mount.mountpoint);
  bool same = sx.stx_dev_major == mount.major && sx.stx_dev_minor == mount.minor;
  if (same_namespace && (sx.stx_mask & STATX_MNT_ID)) same &= sx.stx_mnt_id == static_cast<uint64_t>(mount.mnt_id);
  if (!same) return gone(mount, "another mount was found at its mountpoint");
  if (!S_ISDIR(sx.stx_mode)) return gone(mount, "it is not a directory");
  Fd alone(open_tree(place.get(), "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!alone) return fail_sys("open_tree", mount.mountpoint);
  return alone;
}

Result<Fd> lay_open(const Table& table, int mnt_id) {
  const Mount* mount = table.find(mnt_id);
  if (!mount) return fail(Code::kInternal, cat("no mount ", mnt_id));
  // An unbindable mount cannot be cloned; in a private copy of the namespace it is not unbindable any more.
  if (table.reachable(*mount) && !mount->unbindable) return open_at_mountpoint(*mount, true);
  if (unshare(CLONE_NEWNS) != 0) return fail_sys("unshare");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return fail_sys("make-rprivate");
  for (const Mount* cover : table.covered_by(*mount)) {
    if (umount2(cover->mountpoint.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
      return fail(Error::sys("umount", cover->mountpoint).about(describe(*mount)));
  }
  return open_at_mountpoint(*mount, false);
}

// The detached copy goes away with its descriptor, but what is opened in it stays usable.
Result<Fd> open_detached(const Fd& alone) { return open_at(alone.get(), ".", O_RDONLY | O_DIRECTORY | O_NOATIME); }

}  // namespace

Result<Fd> open_mount_root(const Table& table, int mnt_id) { return open_detached(TRY(lay_open(table, mnt_id))); }

Result<Fd> open_mount_root_inside(int pidfd, const Table& table, int mnt_id) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return fail_sys("socketpair");
  Fd ours(ends[0]), theirs(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return fail_sys("fork");
  if (child == 0) {
    auto open = [&]() -> Result<void> {
      TRY(kernel::setns(pidfd, CLONE_NEWUSER | CLONE_NEWNS, "the container's namespaces"));
      std::vector<Fd> found;
      found.push_back(TRY(lay_open(table, mnt_id)));
      return send_sources(theirs.get(), found);
    };
    const auto done = open();
    if (!done) log::debug(done.error().line());
    ::_exit(done ? 0 : 1);
  }
  theirs.reset();
  auto got = receive_sources(ours.get(), 1);
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (!got) return gone(*table.find(mnt_id), "it is covered by another mount, and that cannot be taken off");
  return open_detached(got->front());
}

}  // namespace stasis::mounts
