// SPDX-License-Identifier: Apache-2.0
// fanotify(7): groups with marks on inodes, mounts and file systems, masks, ignored masks, names of what happens in
// directories; nothing that the checkpoint did is seen.
#include "live.h"
#include <sys/fanotify.h>
#include <sys/mount.h>

static void touch(const char *path) {
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0 && write(fd, "x", 1) == 1, "%s", path);
  close(fd);
}
static void none(int group) {
  struct fanotify_event_metadata e[8];
  ssize_t n = read(group, e, sizeof e);
  CHECK(n < 0 && errno == EAGAIN, "an event too many: mask %llx", n > 0 ? (unsigned long long)e->mask : 0);
}
static void expect(int group, uint64_t mask, const char *path) {
  struct fanotify_event_metadata e;
  char self[64], is[PATH_MAX] = "";
  CHECK(read(group, &e, sizeof e) == sizeof e && e.mask == mask, "mask %llx instead of %llx", (unsigned long long)e.mask, (unsigned long long)mask);
  snprintf(self, sizeof self, "/proc/self/fd/%d", e.fd);
  CHECK(e.fd >= 0 && readlink(self, is, sizeof is - 1) > 0 && !strcmp(is, path), "%.99s", is);
  CHECK(e.pid == getpid() && (fcntl(e.fd, F_GETFL) & O_ACCMODE) == O_RDWR && fcntl(e.fd, F_GETFD) == FD_CLOEXEC);
  close(e.fd);
}
static void expect_name(int group, uint64_t mask, const char *name) {
  char buffer[4096];
  ssize_t n = read(group, buffer, sizeof buffer);
  struct fanotify_event_metadata *e = (void *)buffer;
  CHECK(n >= (ssize_t)sizeof *e && e->event_len == n && e->mask == mask && e->fd == FAN_NOFD, "%zd bytes, mask %llx", n, n > 0 ? (unsigned long long)e->mask : 0);
  struct fanotify_event_info_fid *fid = (void *)(e + 1);
  struct file_handle *handle = (void *)fid->handle;
  CHECK(fid->hdr.info_type == FAN_EVENT_INFO_TYPE_DFID_NAME && !strcmp((char *)handle->f_handle + handle->handle_bytes, name));
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  char *place = live_path("marked"), *file = live_path("marked/file"), *quiet = live_path("marked/quiet"), *names = live_path("marked/names");
  char *fresh = live_path("marked/names/new");
  CHECK(mkdir(place, 0700) == 0);
  int named = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_REPORT_DFID_NAME, O_RDONLY);
  if (named < 0 && errno == ENOSYS) _exit(77);
  CHECK(named >= 0);
  // In a user namespace there are groups of names only; on the host others would be seen by mount and file system.
  int group = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK, O_RDWR | O_CLOEXEC | O_LARGEFILE);
  int others = group < 0 ? -1 : fanotify_init(FAN_CLASS_CONTENT | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE, O_RDWR | O_CLOEXEC);
  int apart = group >= 0 && strncmp(place, "/live/", 6) == 0;
  CHECK(group < 0 ? errno == EPERM : others >= 0);
  if (apart) CHECK(mount("live", place, "tmpfs", 0, NULL) == 0);
  touch(file), touch(quiet);
  CHECK(mkdir(names, 0700) == 0);
  CHECK(fanotify_mark(named, FAN_MARK_ADD | FAN_MARK_ONLYDIR, FAN_CREATE | FAN_DELETE | FAN_ONDIR, AT_FDCWD, names) == 0);
  if (group >= 0) {
    CHECK(fanotify_mark(group, FAN_MARK_ADD, FAN_MODIFY | FAN_CLOSE_WRITE, AT_FDCWD, file) == 0);
    CHECK(fanotify_mark(group, FAN_MARK_ADD, FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, AT_FDCWD, place) == 0);
    CHECK(fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_CLOSE_WRITE, AT_FDCWD, quiet) == 0);
    CHECK(fanotify_mark(others, FAN_MARK_ADD, FAN_CLOSE_WRITE, AT_FDCWD, quiet) == 0);
  }
  if (apart) {
    CHECK(fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_CLOSE_WRITE, AT_FDCWD, place) == 0);
    CHECK(fanotify_mark(others, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_MODIFY, AT_FDCWD, place) == 0);
  }
  int twin = dup(group);
  live_ready();
  live_wait();

  CHECK((fcntl(named, F_GETFL) & O_NONBLOCK) && fcntl(named, F_GETFD) == 0);
  none(named);
  touch(fresh);
  expect_name(named, FAN_CREATE, "new");
  if (apart) expect(group, FAN_CLOSE_WRITE, fresh), expect(others, FAN_MODIFY, fresh);
  CHECK(unlink(fresh) == 0);
  expect_name(named, FAN_DELETE, "new");
  none(named);
  if (group < 0) live_ok();

  CHECK(fcntl(group, F_GETFD) == FD_CLOEXEC);
  none(group), none(others);
  touch(file);
  expect(twin, FAN_MODIFY | FAN_CLOSE_WRITE, file);
  if (apart) expect(others, FAN_MODIFY, file);
  none(group), none(others);
  for (int i = 0; i < 2; i++) {
    touch(quiet);
    none(group);  // what it ignores survives that it is modified
    expect(others, apart ? FAN_MODIFY | FAN_CLOSE_WRITE : FAN_CLOSE_WRITE, quiet);
  }
  live_ok();
}
