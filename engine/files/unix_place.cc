// SPDX-License-Identifier: Apache-2.0
#include "engine/files/unix_place.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "engine/base/io.h"
#include "engine/base/strings.h"
#include "engine/files/unix_look.h"

namespace stasis::files {
namespace {

constexpr int kDeep = 40;  // a name has room for fewer ".."

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

Result<void> enter(const Fd& directory) {
  if (directory && ::fchdir(directory.get()) < 0) return fail_sys("fchdir", "directory of a socket");
  return {};
}

std::unexpected<Error> cannot_bind(const std::string& name) {
  const int error = errno;
  const std::string shown = show_unix_name(name);
  std::string why;
  if (error == EADDRINUSE) why = "; another socket has this name: free it first";
  if (error == ENOENT) why = "; its directory is missing";
  const Error base = Error::sys(Code::kRestoreFailed, "bind a unix socket to", shown);
  return fail(Error(base.code(), cat(base.message(), why)).about(shown).with_errno(error));
}

Result<void> bind_here(int socket, const std::string& name) {
  UnixAddress address(name);
  if (::bind(socket, address.get(), address.size()) < 0) return cannot_bind(name);
  return {};
}

// A file system that is mounted nowhere.
Result<Fd> make_apart() {
  const Fd context(::fsopen("tmpfs", FSOPEN_CLOEXEC));
  if (!context) return fail_sys("fsopen(tmpfs)");
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) < 0) return fail_sys("fsconfig(tmpfs)");
  Fd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  if (!mount) return fail_sys("fsmount(tmpfs)");
  return mount;
}

// An absolute name, with `root` for the root directory.
Result<void> bind_below(int socket, const std::string& name, int root) {
  const Fd own = TRY(open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY));
  if (::fchdir(root) < 0 || ::chroot(".") < 0) return fail_sys("chroot", "root of a socket's name");
  auto bound = bind_here(socket, name);
  if (::fchdir(own.get()) < 0 || ::chroot(".") < 0) return fail_sys("chroot", "/");
  return bound;
}

}  // namespace

UnixAddress::UnixAddress(const std::string& name) {
  address_.sun_family = AF_UNIX;
  const size_t length = std::min(name.size(), sizeof(address_.sun_path));
  std::memcpy(address_.sun_path, name.data(), length);
  const bool path = !name.empty() && name[0] != '\0';
  const size_t with_end = std::min(length + (path ? 1 : 0), sizeof(address_.sun_path));
  size_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + with_end);
}

Result<void> check_unix_path(const std::string& name, const std::string& directory) {
  if (::chdir(directory.empty() ? "/" : directory.c_str()) < 0)
    return fail_sys(Code::kFileMissing, "change to the directory of a socket", directory);
  struct stat st {};
  if (::lstat(name.c_str(), &st) < 0) {
    if (errno != ENOENT) return fail_sys(Code::kRestoreFailed, "look up", name);
    if (const std::string parent = parent_of(name); !parent.empty() && ::access(parent.c_str(), F_OK) < 0)
      return fail(Error(Code::kFileMissing, cat("the directory of the socket ", name, " is missing")).about(name));
    return {};
  }
  if (!S_ISSOCK(st.st_mode))
    return fail(
        Error(Code::kRestoreFailed, cat("a unix socket had the name ", name, ", which is no socket now")).about(name));
  // A socket of another type is told from none, and notices nothing.
  const Fd probe(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!probe) return fail_sys("socket");
  UnixAddress address(name);
  if (::connect(probe.get(), address.get(), address.size()) < 0 && errno == ECONNREFUSED) return {};
  return fail(Error(Code::kRestoreFailed, cat("the unix socket ", name, " belongs to a running process: end it first"))
                  .about(name));
}

Result<UnixPlace> bind_unix(int socket, const std::string& name, const std::string& directory) {
  UnixPlace place;
  place.address = name;
  if (name[0] != '\0') {
    place.directory = TRY(open_at(AT_FDCWD, directory.empty() ? "/" : directory, O_PATH | O_DIRECTORY));
    TRY(enter(place.directory));
    // check_unix_path() has been there.
    if (::unlink(name.c_str()) < 0 && errno != ENOENT)
      return fail_sys(Code::kRestoreFailed, "replace the socket", name);
  }
  TRY(bind_here(socket, name));
  return place;
}

Result<UnixPlace> bind_unix_apart(int socket, const std::string& name) {
  if (name[0] == '\0') return bind_unix(socket, name, "");
  UnixPlace place;
  place.unlink_last = true;
  Fd root = TRY(make_apart());
  if (name[0] == '/') {
    place.address = name.substr(std::min(name.find_first_not_of('/'), name.size()));
    if (const auto parent = parent_of(place.address); !parent.empty()) TRY(make_dirs_at(root.get(), parent));
    TRY(bind_below(socket, name, root.get()));
    place.directory = std::move(root);
    return place;
  }
  std::string deep = "d";
  for (int i = 1; i < kDeep; ++i) deep += "/d";
  TRY(make_dirs_at(root.get(), deep));
  place.directory = TRY(open_at(root.get(), deep, O_PATH | O_DIRECTORY));
  place.address = name;
  if (const auto parent = parent_of(name); !parent.empty()) TRY(make_dirs_at(place.directory.get(), parent));
  TRY(enter(place.directory));
  TRY(bind_here(socket, name));
  // The mount lives as long as it is open.
  TRY(enter(root));
  return place;
}

Result<void> connect_unix(int socket, const UnixPlace& place) {
  TRY(enter(place.directory));
  UnixAddress address(place.address);
  if (::connect(socket, address.get(), address.size()) < 0)
    return fail_sys(Code::kRestoreFailed, "connect a unix socket to", show_unix_name(place.address));
  return {};
}

void unlink_unix(const UnixPlace& place) {
  if (enter(place.directory)) (void)::unlink(place.address.c_str());
}

}  // namespace stasis::files
