// SPDX-License-Identifier: Apache-2.0
// Named pipes: data in flight, ends in several tasks and both in one descriptor, capacity, flags, one without readers,
// one whose name was removed, and tasks that wait in read and in open; fifo(7).
#include "live.h"

static int open_with(const char *path, int flags) {
  int fd = open(path, flags | O_CLOEXEC);
  CHECK(fd >= 0, "%s", path);
  return fd;
}
static char *make(const char *name) {
  char *path = live_path(name);
  CHECK(mkfifo(path, 0640) == 0, "%s", path);
  return path;
}
static int in_call(pid_t pid, long number) {
  char path[64], text[256];
  snprintf(path, sizeof path, "/proc/%d/syscall", pid);
  return atol(live_read_file(path, text, sizeof text)) == number;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  char text[9000];
  char *both_path = make("both"), *down_path = make("down"), *up_path = make("up"), *gone_path = make("gone"), *lone_path = make("lone");
  int both = open_with(both_path, O_RDWR | O_NONBLOCK);
  CHECK(fcntl(both, F_SETPIPE_SZ, 16384) == 16384);
  CHECK(write(both, memset(text, 'b', 8999), 8999) == 8999);
  int gone = open_with(gone_path, O_RDWR), gone_reader = open_with(gone_path, O_RDONLY | O_NONBLOCK);
  CHECK(fchmod(gone, 0604) == 0 && unlink(gone_path) == 0 && write(gone, "lost", 4) == 4);
  int lone_reader = open_with(lone_path, O_RDONLY | O_NONBLOCK), lone = open_with(lone_path, O_WRONLY | O_NONBLOCK);
  CHECK(write(lone, "left", 4) == 4);
  int keep_down = open_with(down_path, O_RDWR);
  CHECK(write(keep_down, "before ", 7) == 7);

  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    close(keep_down), close(both), close(gone), close(gone_reader), close(lone), close(lone_reader);
    int up = open_with(up_path, O_WRONLY), down = open_with(down_path, O_RDONLY);
    ssize_t n;
    CHECK(write(up, "!", 1) == 1);
    while ((n = read(down, text, 100)) > 0) CHECK(write(up, text, n) == n);  // blocked here while dumped
    CHECK(n == 0);
    _exit(0);
  }
  int up = open_with(up_path, O_RDONLY);
  CHECK(read(up, text, 1) == 1);
  int down = open_with(down_path, O_WRONLY);
  close(keep_down);
  make("later");
  pid_t opener = fork();
  CHECK(opener >= 0);
  if (opener == 0) {
    close(lone_reader), close(down), close(up);
    int later = open_with(live_path("later"), O_RDONLY);  // blocked here while dumped
    CHECK(read(later, text, 100) == 5 && memcmp(text, "later", 5) == 0);
    _exit(0);
  }
  while (!in_call(child, SYS_read) || !(in_call(opener, SYS_open) || in_call(opener, SYS_openat))) live_pause();
  live_ready();
  live_wait();

  CHECK(fcntl(both, F_GETPIPE_SZ) == 16384 && (fcntl(both, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_RDWR | O_NONBLOCK));
  CHECK(write(both, "z", 1) == 1 && read(both, text, sizeof text) == 9000 && text[0] == 'b' && text[8999] == 'z');
  CHECK(read(both, text, 1) < 0 && errno == EAGAIN);
  struct stat st, named;
  CHECK(fstat(both, &st) == 0 && stat(both_path, &named) == 0 && st.st_ino == named.st_ino, "another file");
  CHECK(fstat(gone, &st) == 0 && S_ISFIFO(st.st_mode) && st.st_nlink == 0 && (st.st_mode & 0777) == 0604, "mode %o", st.st_mode);
  CHECK(access(gone_path, F_OK) < 0 && errno == ENOENT);
  CHECK(read(gone_reader, text, 10) == 4 && memcmp(text, "lost", 4) == 0);
  CHECK(write(gone, "found", 5) == 5 && read(gone_reader, text, 10) == 5);
  CHECK(write(lone, "!", 1) == 1 && read(lone_reader, text, 10) == 5 && memcmp(text, "left!", 5) == 0);
  close(lone_reader);
  CHECK(write(lone, "x", 1) < 0 && errno == EPIPE, "somebody else reads");

  CHECK(write(down, "after", 5) == 5);
  size_t got = 0;
  while (got < 12) {
    ssize_t n = read(up, text + got, 100);
    CHECK(n > 0);
    got += n;
  }
  CHECK(memcmp(text, "before after", 12) == 0, "%.12s", text);
  close(down);
  CHECK(read(up, text, 1) == 0, "somebody else holds a write end");
  live_reap_ok(child);
  int later = open_with(live_path("later"), O_WRONLY);
  CHECK(write(later, "later", 5) == 5);
  live_reap_ok(opener);
  live_ok();
}
