// SPDX-License-Identifier: Apache-2.0
// A private mount namespace: tmpfs with all kinds of content, binds of a directory and a file, a read-only bind, flags,
// overmounts and the order of mountinfo; mount_namespaces(7), mount(2). Runs as pid 1 of its own root.
#include "live.h"
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

static int user_namespace, access_list;  // no device nodes, no trusted attributes; access lists are there
static const uint32_t kCapability[5] = {0x02000001, 0x400, 0, 0, 0};  // struct vfs_cap_data: CAP_NET_BIND_SERVICE, effective
static const struct {
  uint32_t version;
  struct { uint16_t tag, permissions; uint32_t id; } entry[6];
} kAccessList = {2, {{0x01, 6, -1}, {0x02, 4, 12}, {0x04, 4, -1}, {0x08, 4, 34}, {0x10, 4, -1}, {0x20, 0, -1}}};

static void has_attribute(const char *name, const void *value, ssize_t size) {
  char now[256];
  CHECK(getxattr("/m/d/file", name, now, sizeof now) == size && memcmp(now, value, size) == 0, "%s", name);
}

static void put(const char *path, const char *text, mode_t mode) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s", path);
  CHECK(fchmod(fd, mode) == 0);
  close(fd);
}
static void has(const char *path, const char *text) {
  char now[256];
  CHECK(strcmp(live_read_file(path, now, sizeof now), text) == 0, "%s holds %s", path, now);
}
static void directory(const char *path) { CHECK(mkdir(path, 0755) == 0 || errno == EEXIST, "%s", path); }

// Mountpoint, type, options and flags of every mount, without the ids that are new after restore.
static void mounts_now(char *into, size_t size) {
  static char text[32768];
  char *line, *save;
  live_read_file("/proc/self/mountinfo", text, sizeof text);
  size_t used = 0;
  for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
    char root[256], point[256], options[256], type[64];
    const char *rest = strstr(line, " - ");
    CHECK(rest && sscanf(line, "%*d %*d %*s %255s %255s %255s", root, point, options) == 3 && sscanf(rest, " - %63s", type) == 1);
    used += snprintf(into + used, size - used, "%s %s %s\n", point, options, type);
  }
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  CHECK(getpid() == 1, "meant to be pid 1 of a pid namespace");
  directory("/m");
  CHECK(mount("tmpfs", "/m", "tmpfs", MS_NOSUID | MS_NODEV, "size=8m,mode=711") == 0);
  directory("/m/d");
  put("/m/d/file", "tmpfs content", 0640);
  CHECK(chown("/m/d/file", 12, 34) == 0);
  CHECK(symlink("d/file", "/m/link") == 0 && link("/m/d/file", "/m/hard") == 0 && mkfifo("/m/fifo", 0600) == 0);
  user_namespace = mknod("/m/null", S_IFCHR | 0666, makedev(1, 3)) < 0;
  if (user_namespace) {  // what holds ids, instead of what is not allowed
    CHECK(errno == EPERM && setxattr("/m/d/file", "security.capability", kCapability, sizeof kCapability, 0) == 0);
    access_list = setxattr("/m/d/file", "system.posix_acl_access", &kAccessList, sizeof kAccessList, 0) == 0;
  } else {
    CHECK(setxattr("/m/d/file", "trusted.live", "x", 1, 0) == 0);
  }
  struct timespec times[2] = {{1000, 5}, {2000, 7}};
  CHECK(utimensat(AT_FDCWD, "/m/hard", times, 0) == 0);
  int sparse = open("/m/sparse", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(sparse >= 0 && pwrite(sparse, "end", 3, 4 << 20) == 3);

  directory("/m/bound");
  put("/m/file-target", "", 0644);
  directory("/src");
  put("/src/inside", "bound", 0644);
  CHECK(mount("/src", "/m/bound", NULL, MS_BIND, NULL) == 0);
  CHECK(mount("/src/inside", "/m/file-target", NULL, MS_BIND, NULL) == 0);
  directory("/ro");
  CHECK(mount("/src", "/ro", NULL, MS_BIND, NULL) == 0);
  CHECK(mount(NULL, "/ro", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOEXEC, NULL) == 0);
  directory("/over");
  CHECK(mount("lower", "/over", "tmpfs", 0, "size=1m") == 0);
  put("/over/hidden", "lower", 0600);
  CHECK(mount("upper", "/over", "tmpfs", 0, "size=1m") == 0);
  put("/over/seen", "upper", 0600);
  static char before[16384], after[16384];
  mounts_now(before, sizeof before);
  live_ready();
  live_wait();

  mounts_now(after, sizeof after);
  CHECK(strcmp(before, after) == 0, "mountinfo was\n%s\nis\n%s", before, after);
  has("/m/d/file", "tmpfs content");
  has("/m/link", "tmpfs content");
  has("/m/bound/inside", "bound");
  has("/m/file-target", "bound");
  has("/over/seen", "upper");
  struct stat a, b;
  CHECK(stat("/m/d/file", &a) == 0 && stat("/m/hard", &b) == 0 && a.st_ino == b.st_ino && a.st_nlink == 2, "hard link");
  CHECK(a.st_uid == 12 && a.st_gid == 34 && (a.st_mode & 07777) == 0640);
  CHECK(a.st_mtim.tv_sec == 2000, "mtime %ld", a.st_mtim.tv_sec);
  CHECK(stat("/m/fifo", &a) == 0 && S_ISFIFO(a.st_mode));
  CHECK(user_namespace || (stat("/m/null", &b) == 0 && b.st_rdev == makedev(1, 3)));
  char end[4] = "";
  if (user_namespace)
    has_attribute("security.capability", kCapability, sizeof kCapability);
  else
    has_attribute("trusted.live", "x", 1);
  if (access_list) has_attribute("system.posix_acl_access", &kAccessList, sizeof kAccessList);
  CHECK(stat("/m/sparse", &a) == 0 && a.st_size == (4 << 20) + 3 && a.st_blocks < 1000, "%ld blocks", (long)a.st_blocks);
  CHECK(pread(sparse, end, 3, 4 << 20) == 3 && strcmp(end, "end") == 0, "the open file of the tmpfs");
  CHECK(pwrite(sparse, "E", 1, 4 << 20) == 1);
  put("/m/new", "n", 0600);
  CHECK(open("/ro/x", O_WRONLY | O_CREAT, 0600) < 0 && errno == EROFS, "a read-only mount is writable");
  put("/src/later", "l", 0600);
  has("/m/bound/later", "l");
  CHECK(umount("/over") == 0);
  has("/over/hidden", "lower");
  CHECK(stat("/m", &a) == 0 && (a.st_mode & 07777) == 0711);
  struct statvfs size;
  CHECK(statvfs("/m", &size) == 0 && size.f_blocks * size.f_frsize == 8 << 20, "tmpfs size %lu", (unsigned long)(size.f_blocks * size.f_frsize));
  live_ok();
}
