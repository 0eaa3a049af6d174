// SPDX-License-Identifier: Apache-2.0
#include "cgroups/control_file.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "cgroups/path.h"
#include "engine/base/io.h"

namespace stasis::cgroups {

Result<Fd> open_dir(int root_fd, const std::string& path) {
  return open_at(root_fd, relative(path), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

Result<Listing> list(int dir_fd) {
  Fd fd = TRY(open_at(dir_fd, ".", O_RDONLY | O_DIRECTORY));
  DIR* dir = ::fdopendir(fd.get());
  if (!dir) return fail_sys(Code::kCgroup, "list", "cgroup");
  (void)fd.release();  // owned by dir now
  Listing out;
  while (const dirent* entry = ::readdir(dir)) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    (entry->d_type == DT_DIR ? out.dirs : out.files).emplace_back(name);
  }
  ::closedir(dir);
  std::ranges::sort(out.dirs);
  std::ranges::sort(out.files);
  return out;
}

Result<ControlFile> read_control_with_owner(int dir_fd, const std::string& name) {
  Fd fd = TRY(open_at(dir_fd, name, O_RDONLY | O_NOFOLLOW));
  struct stat st {};
  if (::fstat(fd.get(), &st) < 0) return fail_sys("stat", name);
  ControlFile out{
      .text = TRY(read_all(fd.get(), 1u << 20, name)), .mode = st.st_mode, .uid = st.st_uid, .gid = st.st_gid};
  while (!out.text.empty() && (out.text.back() == '\n' || out.text.back() == ' ')) out.text.pop_back();
  return out;
}

Result<std::string> read_control(int dir_fd, const std::string& name) {
  return std::move(TRY(read_control_with_owner(dir_fd, name)).text);
}

Result<void> write_control(int dir_fd, const std::string& name, std::string_view value) {
  return write_file_at(dir_fd, name, value);
}

Result<Fd> open_for_writing(int dir_fd, const std::string& name) {
  return open_at(dir_fd, name, O_WRONLY | O_NOFOLLOW);
}

bool has_control(int dir_fd, const std::string& name) { return ::faccessat(dir_fd, name.c_str(), F_OK, 0) == 0; }

}  // namespace stasis::cgroups
