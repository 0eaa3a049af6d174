// SPDX-License-Identifier: Apache-2.0
// The files of a tmpfs as a gzip'ed pax archive (pax(1), GNU.sparse 1.0) that GNU tar reads,
// and back. Reaching a file system under its submounts: open_tree(2).
#pragma once

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/procfs/id_map.h"
#include "mounts/table.h"

namespace stasis::mounts {

// The root directory of exactly this mount, without what is mounted inside it, open for reading. Call it
// after setns(2) into the mount namespace. A covered or unbindable mount is laid open in a private copy of the
// namespace: the calling thread is then left in that copy, so setns(2) back afterwards, as one has to anyway.
Result<Fd> open_mount_root(const Table& table, int mnt_id);
// The same for a container with a user namespace of its own, by a child that goes into both of its namespaces: in a
// copy of the namespace made from outside nothing could be laid open. `pidfd` of its root task.
Result<Fd> open_mount_root_inside(int pidfd, const Table& table, int mnt_id);

// Every file of the file system of `tree_dirfd`, below it, with "./" in front. Unix socket nodes become empty
// files with the extended attribute kSocketMark. A file that vanishes meanwhile is an error: nothing runs.
// Needs the caller's own /proc at /proc (there is no llistxattrat(2)): call it after setns(2) back.
// `users`: of the container's own user namespace, whose ids the archive gets, or null.
Result<void> write_archive(int tree_dirfd, int out_fd, const procfs::UserMaps* users = nullptr);
// Fails with kUnsupportedMount if there is any file.
Result<void> check_empty(int tree_dirfd, const std::string& mountpoint);

// Into an empty directory. No entry can reach outside of `target_dirfd`: names are walked component by
// component, symbolic links are never followed, nothing that exists is opened for writing. With `merge` what is
// there already keeps its inode, which other mounts may show, and gets the archive's contents, owner, mode and
// times; it must be of the same type.
Result<void> extract_archive(int in_fd, int target_dirfd, bool merge = false);

inline constexpr char kSocketMark[] = "trusted.stasis.socket";

}  // namespace stasis::mounts
