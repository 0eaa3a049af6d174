// SPDX-License-Identifier: Apache-2.0
// Thousands of descriptors, at high numbers too: of one file, all with positions of their own, some shared, and pipes.
#include <sys/resource.h>

#include "live.h"

enum { kFiles = 2500, kPipes = 500 };

int main(int argc, char **argv) {
  live_init(argc, argv);
  struct rlimit limit;
  CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  // A restore needs as many numbers again, above those.
  int highest = limit.rlim_max > 110000 ? 65000 : limit.rlim_max * 6 / 10, first = highest / 2;
  limit.rlim_cur = highest + 1;
  CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  const char *path = live_path("data");
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  CHECK(fd >= 0 && ftruncate(fd, kFiles) == 0 && dup2(fd, highest) == highest);
  close(fd);
  for (int i = 0; i < kFiles; i++) {
    int one = i % 5 ? open(path, O_RDONLY) : fcntl(first + (i ? i - 1 : 0), F_DUPFD, 0);
    if (!i) one = open(path, O_RDONLY);
    CHECK(one >= 0 && dup2(one, first + i) == first + i);
    close(one);
    CHECK(i % 5 == 0 || lseek(first + i, i, SEEK_SET) == i);
  }
  static int pipes[kPipes][2];
  for (int i = 0; i < kPipes; i++) CHECK(pipe2(pipes[i], O_CLOEXEC) == 0 && write(pipes[i][1], &i, sizeof i) == sizeof i);
  live_ready();
  live_wait();

  struct stat st;
  CHECK(fstat(highest, &st) == 0 && st.st_size == kFiles);
  for (int i = 1; i < kFiles; i++) {
    off_t at = lseek(first + i, 0, SEEK_CUR), wanted = i % 5 ? i : i - 1;
    CHECK(at == wanted, "descriptor %d is at %ld", first + i, (long)at);
  }
  CHECK(lseek(first + 4, 77, SEEK_SET) == 77 && lseek(first + 5, 0, SEEK_CUR) == 77 && lseek(first + 6, 0, SEEK_CUR) == 6);
  for (int i = 0, got; i < kPipes; i++) CHECK(read(pipes[i][0], &got, sizeof got) == sizeof got && got == i, "pipe %d", i);
  CHECK(fcntl(highest - 1, F_GETFD) < 0, "a descriptor too many");
  live_ok();
}
