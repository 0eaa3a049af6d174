// SPDX-License-Identifier: Apache-2.0
#include "integration/cli/private_root.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "engine/base/io.h"
#include "engine/procfs/procfs.h"

namespace stasis::integration::cli {

Result<PrivateRoot> PrivateRoot::make(const std::string& root) {
  PrivateRoot scope;
  const procfs::Procfs proc = TRY(procfs::Procfs::open());
  scope.old_namespace_ = TRY(proc.open_file(::getpid(), "ns/mnt", O_RDONLY));
  scope.old_directory_ = TRY(open_at(AT_FDCWD, ".", O_PATH | O_DIRECTORY));
  if (::unshare(CLONE_NEWNS) != 0) return fail_sys("make a mount namespace for", root);
  // Slaves, not private: what the host mounts or unmounts meanwhile shall not be pinned by us.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return fail_sys("mount --make-rslave", "/");
  if (::mount(root.c_str(), root.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
    return fail_sys(Code::kMountTarget, "bind the new root", root);
  // pivot_root(2) refuses a shared root.
  if (::mount(nullptr, root.c_str(), nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return fail_sys("mount --make-rprivate", root);
  return scope;
}

Result<void> PrivateRoot::leave() {
  if (!old_namespace_) return {};
  if (::setns(old_namespace_.get(), CLONE_NEWNS) != 0) return fail_sys("setns", "the mount namespace of the start");
  old_namespace_.reset();
  // setns(2) moved us to the root of that namespace.
  if (::fchdir(old_directory_.get()) != 0) return fail_sys("fchdir", "the directory of the start");
  return {};
}

}  // namespace stasis::integration::cli
