// SPDX-License-Identifier: Apache-2.0
// libarchive(3) pax writer fed by a walk with *at(2) calls; one descriptor per directory level.
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>

#include "engine/base/io.h"
#include "mounts/content.h"

namespace stasis::mounts {
namespace {

constexpr int kMaxDepth = 200;          // descriptors held by the walk
constexpr size_t kMaxXattr = 64 << 10;  // XATTR_SIZE_MAX, XATTR_LIST_MAX
constexpr size_t kBuffer = 1 << 20;
constexpr size_t kHoleWindow = 1ull << 30;  // never touched, only its length counts

struct CloseArchive {
  void operator()(archive* a) const { archive_write_free(a); }
};
struct FreeEntry {
  void operator()(archive_entry* e) const { archive_entry_free(e); }
};
using Entry = std::unique_ptr<archive_entry, FreeEntry>;

class Writer {
 public:
  Writer(int tree_dirfd, const procfs::UserMaps* users)
      : tree_(tree_dirfd), users_(users), buffer_(kBuffer), xattr_names_(kMaxXattr), xattr_value_(kMaxXattr) {}
  ~Writer() {
    if (zeros_ != MAP_FAILED) munmap(zeros_, kHoleWindow);
  }

  Result<void> run(int out_fd);

 private:
  std::unexpected<Error> archive_error(std::string_view what) {
    const char* text = archive_error_string(archive_.get());
    return fail(Error(archive_errno(archive_.get()) == ENOSPC ? Code::kNoSpace : Code::kSystem,
                      cat(what, ": ", text ? text : "unknown error"))
                    .with_errno(archive_errno(archive_.get())));
  }
  Result<void> directory(int fd, const std::string& path, int depth);
  Result<void> child(int dirfd, const char* name, const std::string& path, int depth);
  Result<std::pair<uid_t, gid_t>> owner(const struct stat& st, const std::string& path) const;
  Result<void> put(archive_entry* e, const struct stat& st, const std::string& path);
  Result<void> regular(archive_entry* e, int fd, const struct stat& st, const std::string& path);
  Result<void> data(int fd, const std::string& path, off_t size);
  Result<void> holes(archive_entry* e, int fd, off_t size);
  Result<void> zeros(off_t count, const std::string& path);
  Result<ssize_t> inside_xattr(const char* name, std::vector<char>& value, ssize_t length,
                               const std::string& path) const;
  Result<void> xattrs(archive_entry* e, const std::string& proc_path, bool follow, const std::string& path);

  int tree_;
  const procfs::UserMaps* users_;
  dev_t device_ = 0;
  std::unique_ptr<archive, CloseArchive> archive_;
  std::map<ino_t, std::string> linked_;  // files with several names, by inode
  std::vector<std::pair<off_t, off_t>> regions_;
  std::vector<char> buffer_, xattr_names_, xattr_value_;
  void* zeros_ = MAP_FAILED;
};

Result<void> Writer::run(int out_fd) {
  archive_.reset(archive_write_new());
  archive* a = archive_.get();
  bool ok = archive_write_set_format_pax(a) == ARCHIVE_OK && archive_write_add_filter_gzip(a) == ARCHIVE_OK &&
            archive_write_set_options(a, "gzip:compression-level=1") == ARCHIVE_OK &&
            archive_write_set_bytes_in_last_block(a, 1) == ARCHIVE_OK && archive_write_open_fd(a, out_fd) == ARCHIVE_OK;
  if (!ok) return archive_error("open archive");
  struct stat st;
  if (fstat(tree_, &st) != 0) return fail_sys("fstat", ".");
  device_ = st.st_dev;
  Fd top = TRY(open_at(tree_, ".", O_RDONLY | O_DIRECTORY));
  TRY(directory(top.get(), ".", 0));
  if (archive_write_close(a) != ARCHIVE_OK) return archive_error("write archive");
  return {};
}

// The walk of one directory: itself first, then what is in it.
Result<void> Writer::directory(int fd, const std::string& path, int depth) {
  if (depth > kMaxDepth)
    return fail(Error(Code::kUnsupportedMount, cat("directories are nested deeper than ", kMaxDepth))
                    .about(path.substr(0, 200)));
  struct stat st;
  if (fstat(fd, &st) != 0) return fail_sys("fstat", path);
  Entry e(archive_entry_new());
  TRY(xattrs(e.get(), cat("/proc/self/fd/", fd), true, path));
  TRY(put(e.get(), st, path + "/"));
  std::vector<std::string> names = TRY(list_dir(fd, "."));
  std::ranges::sort(names);  // the same files make the same archive
  for (const auto& name : names) TRY(child(fd, name.c_str(), path + "/" + name, depth));
  return {};
}

Result<void> Writer::child(int dirfd, const char* name, const std::string& path, int depth) {
  struct stat st;
  if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return fail_sys("stat", path);
  if (st.st_dev != device_) return {};  // a mount inside: not this file system's
  if (S_ISDIR(st.st_mode)) {
    Fd fd = TRY(open_at(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    return directory(fd.get(), path, depth + 1);
  }
  Entry e(archive_entry_new());
  if (st.st_nlink > 1) {
    auto [first, is_new] = linked_.emplace(st.st_ino, path);
    if (!is_new) {
      archive_entry_set_hardlink(e.get(), first->second.c_str());
      st.st_size = 0;
      return put(e.get(), st, path);
    }
  }
  if (S_ISREG(st.st_mode)) {
    Fd fd = TRY(open_at(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOATIME));
    return regular(e.get(), fd.get(), st, path);
  }
  TRY(xattrs(e.get(), cat("/proc/self/fd/", dirfd, "/", name), false, path));
  if (S_ISLNK(st.st_mode)) {
    std::string target = TRY(read_link_at(dirfd, name));
    archive_entry_copy_symlink(e.get(), target.c_str());
  }
  if (S_ISSOCK(st.st_mode)) {
    // tar has no sockets. Whoever only knows tar finds an empty file, which bind(2)'s restorer replaces.
    archive_entry_xattr_add_entry(e.get(), kSocketMark, "1", 1);
    st.st_mode = (st.st_mode & ~static_cast<mode_t>(S_IFMT)) | S_IFREG;
  }
  if (!S_ISREG(st.st_mode)) st.st_size = 0;
  return put(e.get(), st, path);
}

// Root of a user namespace can neither give a file to an id that is not in it nor make device nodes.
Result<std::pair<uid_t, gid_t>> Writer::owner(const struct stat& st, const std::string& path) const {
  if (!users_) return std::pair{st.st_uid, st.st_gid};
  auto refuse = [&](std::string why) {
    return fail(Error(Code::kUnsupportedMount, cat(path.substr(0, 200), why)).about(path.substr(0, 200)));
  };
  const auto uid = users_->uid.inside(st.st_uid), gid = users_->gid.inside(st.st_gid);
  if (!uid || !gid)
    return refuse(cat(" belongs to user ", st.st_uid, " and group ", st.st_gid,
                      " of the host, which the container's user namespace does not have"));
  if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
    return refuse(" is a device node, which cannot be made again in a user namespace");
  return std::pair{*uid, *gid};
}

Result<void> Writer::put(archive_entry* e, const struct stat& st, const std::string& path) {
  archive_entry_copy_pathname(e, path.c_str());
  archive_entry_set_mode(e, st.st_mode);
  const auto [uid, gid] = TRY(owner(st, path));
  archive_entry_set_uid(e, uid);
  archive_entry_set_gid(e, gid);
  archive_entry_set_size(e, S_ISREG(st.st_mode) ? st.st_size : 0);
  archive_entry_set_mtime(e, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
  archive_entry_set_atime(e, st.st_atim.tv_sec, st.st_atim.tv_nsec);
  if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
    archive_entry_set_rdevmajor(e, major(st.st_rdev));
    archive_entry_set_rdevminor(e, minor(st.st_rdev));
  }
  // A warning means that the name is not UTF-8 and was written as bytes, with hdrcharset=BINARY.
  if (archive_write_header(archive_.get(), e) < ARCHIVE_WARN) return archive_error(cat("header of ", path));
  return {};
}

Result<void> Writer::regular(archive_entry* e, int fd, const struct stat& st, const std::string& path) {
  TRY(xattrs(e, cat("/proc/self/fd/", fd), true, path));
  archive_entry_set_size(e, st.st_size);  // holes outside of the size would be dropped
  TRY(holes(e, fd, st.st_size));
  TRY(put(e, st, path));
  return data(fd, path, st.st_size);
}

// Fills regions_ with the parts that hold data, and tells the archive if there are holes.
Result<void> Writer::holes(archive_entry* e, int fd, off_t size) {
  regions_.clear();
  for (off_t at = 0; at < size;) {
    off_t begin = lseek(fd, at, SEEK_DATA);
    if (begin < 0 && errno == ENXIO) break;
    if (begin < 0) return fail_sys("lseek");
    off_t end = lseek(fd, begin, SEEK_HOLE);
    if (end < 0) return fail_sys("lseek");
    end = std::min(end, size);
    regions_.emplace_back(begin, end);
    at = end;
  }
  bool whole = size == 0 || (regions_.size() == 1 && regions_[0] == std::pair<off_t, off_t>(0, size));
  if (whole) return {};
  for (auto [begin, end] : regions_) archive_entry_sparse_add_entry(e, begin, end - begin);
  // A map without data regions would mean "no holes": one of no bytes at the end says "all hole".
  if (regions_.empty()) archive_entry_sparse_add_entry(e, size, 0);
  return {};
}

// The writer wants holes too, as bytes it then skips without reading them.
Result<void> Writer::zeros(off_t count, const std::string& path) {
  if (count > 0 && zeros_ == MAP_FAILED) {
    zeros_ = mmap(nullptr, kHoleWindow, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (zeros_ == MAP_FAILED) return fail_sys("mmap");
  }
  while (count > 0) {
    la_ssize_t n = archive_write_data(archive_.get(), zeros_, std::min<off_t>(count, kHoleWindow));
    if (n <= 0) return archive_error(cat("hole of ", path));
    count -= n;
  }
  return {};
}

Result<void> Writer::data(int fd, const std::string& path, off_t size) {
  off_t at = 0;
  for (auto [begin, end] : regions_) {
    TRY(zeros(begin - at, path));
    for (at = begin; at < end;) {
      ssize_t got = pread(fd, buffer_.data(), std::min<off_t>(kBuffer, end - at), at);
      if (got < 0) return fail_sys("read", path);
      if (got == 0) return fail(Code::kSystem, cat(path, " shrank while it was read"));
      for (ssize_t sent = 0; sent < got;) {
        la_ssize_t n = archive_write_data(archive_.get(), buffer_.data() + sent, got - sent);
        if (n <= 0) return archive_error(cat("data of ", path));
        sent += n;
      }
      at += got;
    }
  }
  return zeros(size - at, path);
}

// Two kinds of extended attributes hold ids: file capabilities of a user namespace name its root (struct
// vfs_ns_cap_data, linux/capability.h), access lists name users and groups (linux/posix_acl_xattr.h).
Result<ssize_t> Writer::inside_xattr(const char* name, std::vector<char>& value, ssize_t length,
                                     const std::string& path) const {
  if (!users_) return length;
  auto refuse = [&] {
    return fail(Error(Code::kUnsupportedMount, cat(path.substr(0, 200), " has the attribute ", name,
                                                   " of ids that the container's user namespace does not have"))
                    .about(path.substr(0, 200)));
  };
  auto word = [&](ssize_t at) {
    uint32_t w;
    std::memcpy(&w, value.data() + at, sizeof w);
    return w;
  };
  auto set_word = [&](ssize_t at, uint32_t w) { std::memcpy(value.data() + at, &w, sizeof w); };
  if (std::string_view(name) == "security.capability") {
    constexpr uint32_t kRevision = 0xff000000, kRevision2 = 0x02000000, kRevision3 = 0x03000000;
    if (length != 24 || (word(0) & kRevision) != kRevision3) return refuse();
    if (users_->uid.inside(word(20)) != 0u) return refuse();
    set_word(0, (word(0) & ~kRevision) | kRevision2);  // the root of whoever sets it
    return 20;
  }
  if (std::string_view(name).starts_with("trusted.")) return refuse();  // nobody inside can have or set it
  if (!std::string_view(name).starts_with("system.posix_acl_")) return length;
  constexpr uint16_t kUser = 0x02, kGroup = 0x08;
  for (ssize_t at = 4; at + 8 <= length; at += 8) {
    const uint16_t tag = word(at) & 0xffff;
    if (tag != kUser && tag != kGroup) continue;
    const auto inner = (tag == kUser ? users_->uid : users_->gid).inside(word(at + 4));
    if (!inner) return refuse();
    set_word(at + 4, *inner);
  }
  return length;
}

Result<void> Writer::xattrs(archive_entry* e, const std::string& proc_path, bool follow, const std::string& path) {
  std::vector<char>&names = xattr_names_, &value = xattr_value_;
  auto list = follow ? listxattr : llistxattr;
  auto get = follow ? getxattr : lgetxattr;
  ssize_t size = list(proc_path.c_str(), names.data(), names.size());
  if (size < 0) {
    if (errno == ENOTSUP) return {};
    return fail_sys("listxattr", path);
  }
  for (const char* name = names.data(); name < names.data() + size; name += strlen(name) + 1) {
    ssize_t length = get(proc_path.c_str(), name, value.data(), value.size());
    if (length < 0) return fail_sys(cat("getxattr ", name), path);
    length = TRY(inside_xattr(name, value, length, path));
    archive_entry_xattr_add_entry(e, name, value.data(), length);
  }
  return {};
}

}  // namespace

Result<void> write_archive(int tree_dirfd, int out_fd, const procfs::UserMaps* users) {
  return Writer(tree_dirfd, users).run(out_fd);
}

Result<void> check_empty(int tree_dirfd, const std::string& mountpoint) {
  auto names = TRY(list_dir(tree_dirfd, "."));
  if (names.empty()) return {};
  return fail(
      Error(Code::kUnsupportedMount, cat("it holds \"", names[0], "\", and content of this file system is not kept"))
          .about(cat("mount ", mountpoint)));
}

}  // namespace stasis::mounts
