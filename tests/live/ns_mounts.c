// SPDX-License-Identifier: Apache-2.0
// A private mount namespace: tmpfs with all kinds of content, binds of a directory and a file, a read-only bind, flags,
// overmounts and the order of mountinfo; mount_namespaces(7), mount(2). Runs as pid 1 of its own root.
#include "live.h"
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

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
  CHECK(mknod("/m/null", S_IFCHR | 0666, makedev(1, 3)) == 0);
  CHECK(setxattr("/m/d/file", "trusted.live", "x", 1, 0) == 0);
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
  CHECK(stat("/m/fifo", &a) == 0 && S_ISFIFO(a.st_mode) && stat("/m/null", &b) == 0 && b.st_rdev == makedev(1, 3));
  char byte, end[4] = "";
  CHECK(getxattr("/m/d/file", "trusted.live", &byte, 1) == 1 && byte == 'x');
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
