// SPDX-License-Identifier: Apache-2.0
// inotify(7): watches keep their numbers, masks and places; one-shot ones; nothing that the restore did is seen.
#include <sys/inotify.h>

#include "live.h"

static int add(int fd, const char *path, uint32_t mask) {
  int wd = inotify_add_watch(fd, path, mask);
  CHECK(wd > 0, "%s", path);
  return wd;
}
static void expect(int fd, int wd, uint32_t mask, const char *name) {
  union {
    struct inotify_event event;
    char bytes[4096];
  } buffer;
  ssize_t n = read(fd, &buffer, sizeof buffer.event);  // one, if it has no name
  if (n < 0 && errno == EINVAL) n = read(fd, &buffer, sizeof buffer.event + 16);
  CHECK(n >= (ssize_t)sizeof buffer.event, "no event on watch %d (%zd)", wd, n);
  CHECK(buffer.event.wd == wd && buffer.event.mask == mask, "watch %d, mask %x instead of %d, %x", buffer.event.wd, buffer.event.mask, wd, mask);
  CHECK(!name || (buffer.event.len && strcmp(buffer.event.name, name) == 0), "%s", buffer.event.name);
}
static void none(int fd) {
  char byte[64];
  CHECK(read(fd, byte, sizeof byte) < 0 && errno == EAGAIN, "an event too many: watch %d, mask %x", ((struct inotify_event *)byte)->wd,
        ((struct inotify_event *)byte)->mask);
}
static void touch(const char *path) {
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0 && write(fd, "x", 1) == 1);
  close(fd);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  const char *directory = live_path("watched"), *file = live_path("file"), *moved = live_path("renamed");
  CHECK(mkdir(directory, 0700) == 0);
  touch(file), touch(moved);
  int held = open(file, O_RDWR | O_CLOEXEC);
  int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), other = inotify_init();
  CHECK(held >= 0 && fd >= 0 && other >= 0);
  for (int i = 1; i <= 300; i++) {  // numbers that were given before
    int wd = add(fd, file, IN_ATTRIB);
    CHECK(wd == i && inotify_rm_watch(fd, wd) == 0);
    expect(fd, i, IN_IGNORED, NULL);
  }
  int in_directory = add(fd, directory, IN_CREATE | IN_DELETE | IN_ONLYDIR);
  int of_file = add(fd, file, IN_ALL_EVENTS);
  int once = add(fd, moved, IN_MODIFY | IN_ONESHOT);
  int else_where = add(other, directory, IN_DELETE | IN_MASK_CREATE);
  CHECK(in_directory == 301 && of_file == 302 && once == 303 && else_where == 1);
  CHECK(rename(moved, live_path("new")) == 0);
  int twin = dup(other);
  live_ready();
  live_wait();

  CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) && !(fcntl(other, F_GETFL) & O_NONBLOCK) && fcntl(fd, F_GETFD) == FD_CLOEXEC);
  none(fd);
  touch(live_path("watched/a"));
  expect(fd, in_directory, IN_CREATE, "a");
  none(fd);
  CHECK(write(held, "y", 1) == 1);
  expect(fd, of_file, IN_MODIFY, NULL);
  touch(live_path("new"));
  expect(fd, once, IN_MODIFY, NULL);
  expect(fd, once, IN_IGNORED, NULL);
  touch(live_path("new"));
  none(fd);
  CHECK(unlink(live_path("watched/a")) == 0);
  expect(fd, in_directory, IN_DELETE, "a");
  expect(twin, else_where, IN_DELETE, "a");
  CHECK(inotify_rm_watch(other, else_where) == 0);
  expect(other, else_where, IN_IGNORED, NULL);
  CHECK(add(fd, live_path("new"), IN_ATTRIB) == 304, "numbers go on from elsewhere");
  live_ok();
}
