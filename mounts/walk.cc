// SPDX-License-Identifier: Apache-2.0
#include "mounts/walk.h"

#include <sys/stat.h>

#include "engine/base/io.h"

namespace stasis::mounts {

Result<Fd> walk_path(int dirfd, std::string_view path) {
  Fd here = TRY(open_at(dirfd, ".", O_PATH | O_DIRECTORY));
  if (path.empty()) return here;
  for (auto part : split(path, '/')) {
    if (part.empty() || part == "." || part == "..") return fail(Code::kImageCorrupt, cat("bad path \"", path, "\""));
    here = TRY(open_at(here.get(), std::string(part), O_PATH | O_NOFOLLOW));
  }
  struct stat st;
  if (fstat(here.get(), &st) != 0) return fail_sys("fstat", path);
  if (S_ISLNK(st.st_mode)) return fail(Code::kMountTarget, cat(path, " is a symbolic link"));
  return here;
}

Result<bool> is_directory(int fd) {
  struct stat st;
  if (fstat(fd, &st) != 0) return fail_sys("fstat");
  return S_ISDIR(st.st_mode);
}

}  // namespace stasis::mounts
