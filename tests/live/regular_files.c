// SPDX-License-Identifier: Apache-2.0
// Regular files: offsets, status flags, close-on-exec, descriptors that share one open file
// (dup, fork) and descriptors that only share the path; open(2), fcntl(2), dup(2).
#include "live.h"

static int open_with(const char *path, int flags) {
  int fd = open(path, flags, 0640);
  CHECK(fd >= 0, "%s", path);
  return fd;
}
static off_t at(int fd) { return lseek(fd, 0, SEEK_CUR); }

int main(int argc, char **argv) {
  live_init(argc, argv);
  const char *path = live_path("data.txt");
  int writer = open_with(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC);
  CHECK(write(writer, "0123456789abcdef", 16) == 16);
  int reader = open_with(path, O_RDONLY);
  CHECK(lseek(reader, 5, SEEK_SET) == 5);
  int appender = open_with(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC);
  int noatime = open_with(path, O_RDONLY | O_NOATIME);
  int sync = open_with(path, O_RDWR | O_DSYNC);
  int o_path = open_with(path, O_PATH | O_CLOEXEC);
  int far = fcntl(reader, F_DUPFD_CLOEXEC, 700);  // shares reader's offset, has its own FD_CLOEXEC
  CHECK(far == 700);
  CHECK(lseek(noatime, 1l << 33, SEEK_SET) == 1l << 33);  // beyond the end, beyond 32 bits

  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    close(writer);
    int own = open_with(path, O_RDONLY);
    CHECK(lseek(own, 3, SEEK_SET) == 3);
    live_gate_pass(gate);
    live_wait();
    while (access(live_path("moved"), F_OK)) live_pause();
    CHECK(at(far) == 9, "the child sees offset %ld in the file it shares", (long)at(far));
    CHECK(at(own) == 3);
    CHECK(fcntl(writer, F_GETFD) < 0 || at(writer) != 16 || writer == own, "a closed descriptor came back");
    _exit(0);
  }
  live_gate_await(gate, 1);
  live_ready();
  live_wait();

  CHECK(at(writer) == 16 && at(reader) == 5 && at(far) == 5 && at(noatime) == 1l << 33, "offsets %ld %ld %ld %ld",
        (long)at(writer), (long)at(reader), (long)at(far), (long)at(noatime));
  CHECK(fcntl(writer, F_GETFD) == FD_CLOEXEC && fcntl(reader, F_GETFD) == 0 && fcntl(far, F_GETFD) == FD_CLOEXEC);
  CHECK((fcntl(writer, F_GETFL) & O_ACCMODE) == O_RDWR && (fcntl(reader, F_GETFL) & O_ACCMODE) == O_RDONLY);
  int flags = fcntl(appender, F_GETFL);
  CHECK((flags & O_APPEND) && (flags & O_NONBLOCK) && (flags & O_ACCMODE) == O_WRONLY, "flags %#o", flags);
  CHECK(fcntl(noatime, F_GETFL) & O_NOATIME);
  CHECK(fcntl(sync, F_GETFL) & O_DSYNC);
  CHECK(fcntl(o_path, F_GETFL) & O_PATH);
  CHECK(write(o_path, "x", 1) < 0 && errno == EBADF);
  CHECK(fcntl(sync + 30, F_GETFD) < 0 && errno == EBADF, "a descriptor too many");

  char text[4];
  CHECK(read(reader, text, 4) == 4 && memcmp(text, "5678", 4) == 0);
  CHECK(at(far) == 9, "dup'ed descriptors no longer share the offset");
  close(open_with(live_path("moved"), O_WRONLY | O_CREAT | O_CLOEXEC));
  CHECK(write(appender, "ZZ", 2) == 2 && pread(writer, text, 2, 16) == 2 && memcmp(text, "ZZ", 2) == 0);
  CHECK(fcntl(reader, F_SETFL, O_NONBLOCK) == 0 && (fcntl(far, F_GETFL) & O_NONBLOCK), "status flags are not shared");
  live_reap_ok(child);
  live_ok();
}
