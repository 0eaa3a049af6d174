// SPDX-License-Identifier: Apache-2.0
// libarchive(3) reader; every name is taken apart and walked by hand, so an archive can only make new
// files below the target. Owners, modes and times of directories are set last, deepest first.
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "mounts/content.h"
#include "mounts/walk.h"

namespace stasis::mounts {
namespace {

constexpr size_t kMaxName = 64 << 10;    // a path built of relative steps may be longer than PATH_MAX
constexpr size_t kMaxEntries = 1 << 24;  // far above what fits into a tmpfs

struct FreeRead {
  void operator()(archive* a) const { archive_read_free(a); }
};

std::unexpected<Error> corrupt(std::string why, std::string_view name) {
  return fail(Error(Code::kImageCorrupt, std::move(why)).about(std::string(name.substr(0, 200))));
}

// "./a/b/" -> "a/b"; "./" -> "". Refuses what is not a plain path below the top.
Result<std::string> clean_name(const char* raw) {
  if (!raw || !*raw) return corrupt("an archive entry without a name", "");
  std::string_view text(raw);
  if (text.size() > kMaxName) return corrupt("an archive entry's name is too long", text);
  if (text.starts_with('/')) return corrupt("an archive entry with an absolute name", text);
  std::vector<std::string> parts;
  for (auto part : split(text, '/')) {
    if (part == "..") return corrupt("an archive entry with .. in its name", text);
    if (part.size() > 255) return corrupt("an archive entry's name is too long", text);
    if (!part.empty() && part != ".") parts.emplace_back(part);
  }
  return join(parts, "/");
}

// A name of a pax header is UTF-8, which may not exist in the locale's character set: then it is given as it is.
const char* name_of(archive_entry* e) {
  const char* name = archive_entry_pathname(e);
  return name ? name : archive_entry_pathname_utf8(e);
}
const char* hard_link_of(archive_entry* e) {
  const char* name = archive_entry_hardlink(e);
  return name ? name : archive_entry_hardlink_utf8(e);
}
const char* target_of(archive_entry* e) {
  const char* name = archive_entry_symlink(e);
  return name ? name : archive_entry_symlink_utf8(e);
}

struct Meta {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0;
  std::array<timespec, 2> times{};
  std::vector<std::pair<std::string, std::string>> xattrs;
};

Meta meta_of(archive_entry* e) {
  Meta m;
  m.uid = static_cast<uid_t>(archive_entry_uid(e));
  m.gid = static_cast<gid_t>(archive_entry_gid(e));
  m.mode = archive_entry_mode(e) & 07777;
  m.times[1] = {archive_entry_mtime(e), archive_entry_mtime_nsec(e)};
  m.times[0] =
      archive_entry_atime_is_set(e) ? timespec{archive_entry_atime(e), archive_entry_atime_nsec(e)} : m.times[1];
  const char* name;
  const void* value;
  size_t size;
  archive_entry_xattr_reset(e);
  while (archive_entry_xattr_next(e, &name, &value, &size) == ARCHIVE_OK)
    m.xattrs.emplace_back(name, std::string(static_cast<const char*>(value), size));
  return m;
}

// Of "a/b/c" the directory "a/b", walked, and the name "c".
struct Place {
  Fd dir;
  std::string name;
};

class Extractor {
 public:
  Extractor(int in_fd, int target, bool merge) : in_(in_fd), target_(target), merge_(merge) {}
  Result<void> run();

 private:
  std::unexpected<Error> archive_error(std::string_view what) {
    const char* text = archive_error_string(archive_.get());
    return corrupt(cat(what, ": ", text ? text : "unknown error"), "");
  }
  Result<void> entry(archive_entry* e);
  Result<void> make(archive_entry* e, const std::string& path, Meta meta);
  Result<void> hard_link(const char* to, const std::string& path);
  Result<void> content(int fd, int64_t size, const std::string& path);
  Result<void> finish(int dirfd, const std::string& name, const Meta& meta, bool is_link, const std::string& path);
  Result<void> finish_directories();
  Result<Place> place(const std::string& path);

  int in_, target_;
  bool merge_;
  std::unique_ptr<archive, FreeRead> archive_;
  std::vector<std::pair<std::string, Meta>> directories_;
};

Result<Place> Extractor::place(const std::string& path) {
  size_t slash = path.rfind('/');
  std::string_view dir = slash == path.npos ? std::string_view() : std::string_view(path).substr(0, slash);
  Fd fd = TRY(walk_path(target_, dir));
  return Place{std::move(fd), slash == path.npos ? path : path.substr(slash + 1)};
}

Result<void> Extractor::run() {
  archive_.reset(archive_read_new());
  archive* a = archive_.get();
  bool ok = archive_read_support_filter_gzip(a) == ARCHIVE_OK && archive_read_support_filter_none(a) == ARCHIVE_OK &&
            archive_read_support_format_tar(a) == ARCHIVE_OK && archive_read_open_fd(a, in_, 1 << 16) == ARCHIVE_OK;
  if (!ok) return archive_error("open archive");
  for (size_t count = 0;; ++count) {
    archive_entry* e = nullptr;
    int rc = archive_read_next_header(a, &e);
    if (rc == ARCHIVE_EOF) break;
    if (rc != ARCHIVE_OK) return archive_error("read archive");
    if (count >= kMaxEntries) return corrupt("too many archive entries", "");
    TRY(entry(e));
  }
  if (archive_read_close(a) != ARCHIVE_OK) return archive_error("close archive");
  return finish_directories();
}

Result<void> Extractor::entry(archive_entry* e) {
  std::string path = TRY(clean_name(name_of(e)));
  if (const char* to = hard_link_of(e)) return hard_link(to, path);
  return make(e, path, meta_of(e));
}

Result<void> Extractor::hard_link(const char* to, const std::string& path) {
  std::string old_path = TRY(clean_name(to));
  if (old_path.empty() || path.empty()) return corrupt("a hard link to the top directory", path);
  Place from = TRY_CTX(place(old_path), "hard link");
  Place at = TRY_CTX(place(path), "hard link");
  if (linkat(from.dir.get(), from.name.c_str(), at.dir.get(), at.name.c_str(), 0) != 0) return fail_sys("link", path);
  return {};
}

Result<void> Extractor::make(archive_entry* e, const std::string& path, Meta meta) {
  mode_t type = archive_entry_filetype(e);
  bool is_dir = type == AE_IFDIR;
  if (path.empty()) {
    if (!is_dir) return corrupt("the top entry of an archive is not a directory", ".");
    directories_.emplace_back(path, std::move(meta));
    return {};
  }
  Place at = TRY_CTX(place(path), "archive entry");
  const char* name = at.name.c_str();
  if (std::erase_if(meta.xattrs, [](const auto& x) { return x.first == kSocketMark; })) type = AE_IFSOCK;
  dev_t device =
      type == AE_IFCHR || type == AE_IFBLK ? makedev(archive_entry_rdevmajor(e), archive_entry_rdevminor(e)) : 0;
  struct stat st;
  if (merge_ && fstatat(at.dir.get(), name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
    if ((st.st_mode & S_IFMT) != type || type == AE_IFLNK || (device != 0 && device != st.st_rdev))
      return corrupt("a file of another type than the container's own", path);
    if (is_dir) {
      directories_.emplace_back(path, std::move(meta));
      return {};
    }
    if (type == AE_IFREG) {
      Fd fd = TRY(open_at(at.dir.get(), at.name, O_WRONLY | O_TRUNC | O_NOFOLLOW));
      TRY(content(fd.get(), archive_entry_size(e), path));
    }
    return finish(at.dir.get(), at.name, meta, false, path);
  }
  switch (type) {
    case AE_IFDIR:
      if (mkdirat(at.dir.get(), name, 0700) != 0) return fail_sys("mkdir", path);
      directories_.emplace_back(path, std::move(meta));
      return {};
    case AE_IFREG: {
      Fd fd = TRY(open_at(at.dir.get(), at.name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
      TRY(content(fd.get(), archive_entry_size(e), path));
      break;
    }
    case AE_IFLNK: {
      const char* to = target_of(e);
      if (!to || !*to) return corrupt("a symbolic link without a target", path);
      if (symlinkat(to, at.dir.get(), name) != 0) return fail_sys("symlink", path);
      break;
    }
    case AE_IFCHR:
    case AE_IFBLK:
    case AE_IFIFO:
    case AE_IFSOCK:
      if (mknodat(at.dir.get(), name, type | 0600, device) != 0) return fail_sys("mknod", path);
      break;
    default: return corrupt("an archive entry of unknown type", path);
  }
  return finish(at.dir.get(), at.name, meta, type == AE_IFLNK, path);
}

Result<void> Extractor::content(int fd, int64_t size, const std::string& path) {
  if (size < 0) return corrupt("a file of negative size", path);
  for (;;) {
    const void* block;
    size_t length;
    la_int64_t offset;
    int rc = archive_read_data_block(archive_.get(), &block, &length, &offset);
    if (rc == ARCHIVE_EOF) break;
    if (rc != ARCHIVE_OK) return archive_error(cat("data of ", path));
    if (offset < 0 || offset > size || length > static_cast<uint64_t>(size - offset))
      return corrupt("data beyond the end of a file", path);
    for (size_t done = 0; done < length;) {
      ssize_t n = pwrite(fd, static_cast<const char*>(block) + done, length - done, offset + done);
      if (n < 0) return fail_sys("write", path);
      done += n;
    }
  }
  if (ftruncate(fd, size) != 0) return fail_sys("ftruncate", path);
  return {};
}

// chown first: it takes away set-id bits and file capabilities.
Result<void> Extractor::finish(int dirfd, const std::string& name, const Meta& meta, bool is_link,
                               const std::string& path) {
  const char* at = name.empty() ? "." : name.c_str();
  if (fchownat(dirfd, at, meta.uid, meta.gid, AT_SYMLINK_NOFOLLOW) != 0) return fail_sys("chown", path);
  // We made it a moment ago in a file system that nobody else sees yet: it is no link.
  if (!is_link && fchmodat(dirfd, at, meta.mode, 0) != 0) return fail_sys("chmod", path);
  std::string proc_path = cat("/proc/self/fd/", dirfd, "/", at);
  for (const auto& [key, value] : meta.xattrs) {
    if (lsetxattr(proc_path.c_str(), key.c_str(), value.data(), value.size(), 0) == 0) continue;
    if (errno != ENOTSUP || !key.starts_with("security.selinux")) return fail_sys(cat("setxattr ", key), path);
    log::warning("no SELinux here for the label of ", path, ", ignoring");
  }
  if (utimensat(dirfd, at, meta.times.data(), AT_SYMLINK_NOFOLLOW) != 0) return fail_sys("utimens", path);
  return {};
}

Result<void> Extractor::finish_directories() {
  for (auto d = directories_.rbegin(); d != directories_.rend(); ++d) {
    Fd fd = TRY(walk_path(target_, d->first));
    TRY(finish(fd.get(), "", d->second, false, d->first));
  }
  return {};
}

}  // namespace

Result<void> extract_archive(int in_fd, int target_dirfd, bool merge) {
  return Extractor(in_fd, target_dirfd, merge).run();
}

}  // namespace stasis::mounts
