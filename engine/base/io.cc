// SPDX-License-Identifier: Apache-2.0
#include "engine/base/io.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

namespace stasis {

Result<Fd> open_at(int dirfd, const std::string& path, int flags, mode_t mode) {
  int fd;
  do fd = ::openat(dirfd, path.c_str(), flags | O_CLOEXEC, mode);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) return fail_sys("open", path);
  return Fd(fd);
}

Result<std::string> read_all(int fd, size_t limit, std::string_view name) {
  std::string out;
  char buffer[16384];
  while (true) {
    const ssize_t n = ::read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_sys("read", name);
    if (n == 0) return out;
    if (out.size() + static_cast<size_t>(n) > limit)
      return fail(Error(Code::kSystem, cat("read ", name, ": larger than ", limit, " bytes")).about(std::string(name)));
    out.append(buffer, static_cast<size_t>(n));
  }
}

Result<std::string> read_file_at(int dirfd, const std::string& path, size_t limit) {
  Fd fd = TRY(open_at(dirfd, path, O_RDONLY | O_NOCTTY));
  return read_all(fd.get(), limit, path);
}

Result<void> write_file_at(int dirfd, const std::string& path, std::string_view text) {
  Fd fd = TRY(open_at(dirfd, path, O_WRONLY | O_NOCTTY));
  ssize_t n;
  do n = ::write(fd.get(), text.data(), text.size());
  while (n < 0 && errno == EINTR);
  if (n < 0) return fail_sys(cat("write \"", trim(text), "\" to"), path);
  if (static_cast<size_t>(n) != text.size()) return fail(Code::kSystem, cat("short write to ", path));
  return {};
}

Result<void> write_full(int fd, const void* data, size_t size, std::string_view name) {
  const char* p = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = ::write(fd, p, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_sys("write", name);
    p += n;
    size -= static_cast<size_t>(n);
  }
  return {};
}

Result<void> read_full(int fd, void* data, size_t size, std::string_view name) {
  char* p = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t n = ::read(fd, p, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_sys("read", name);
    if (n == 0) return fail(Error(Code::kImageCorrupt, cat(name, ": unexpected end of file")).about(std::string(name)));
    p += n;
    size -= static_cast<size_t>(n);
  }
  return {};
}

Result<std::string> read_link_at(int dirfd, const std::string& path) {
  char buffer[PATH_MAX];
  const ssize_t n = ::readlinkat(dirfd, path.c_str(), buffer, sizeof(buffer));
  if (n < 0) return fail_sys("readlink", path);
  return std::string(buffer, static_cast<size_t>(n));
}

Result<std::vector<std::string>> list_dir(int dirfd, const std::string& path) {
  Fd fd = TRY(open_at(dirfd, path, O_RDONLY | O_DIRECTORY));
  DIR* dir = ::fdopendir(fd.get());
  if (!dir) return fail_sys("opendir", path);
  (void)fd.release();  // owned by dir now
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(dir)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  const int err = errno;
  ::closedir(dir);
  if (err) {
    errno = err;
    return fail_sys("readdir", path);
  }
  return names;
}

Result<Fd> dup_at_least(int fd, int minimum) {
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, minimum);
  if (copy < 0) return fail_sys("fcntl(F_DUPFD_CLOEXEC)");
  return Fd(copy);
}

Result<void> make_dirs_at(int dirfd, const std::string& path, mode_t mode) {
  for (size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
    const std::string part = path.substr(0, at);
    if (!part.empty() && ::mkdirat(dirfd, part.c_str(), mode) < 0 && errno != EEXIST) return fail_sys("mkdir", part);
    if (at == std::string::npos) return {};
  }
}

}  // namespace stasis
