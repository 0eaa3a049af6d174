// SPDX-License-Identifier: Apache-2.0
// The character devices every container has: null, zero, full, random, urandom; null(4), random(4).
#include "live.h"
#include <sys/sysmacros.h>

static const struct { const char *path; int flags; unsigned minor; } kNodes[] = {
    {"/dev/null", O_RDWR, 3}, {"/dev/zero", O_RDONLY | O_CLOEXEC, 5}, {"/dev/full", O_RDWR | O_NONBLOCK, 7},
    {"/dev/random", O_RDONLY, 8}, {"/dev/urandom", O_RDONLY, 9}};
enum { kCount = sizeof kNodes / sizeof *kNodes };

int main(int argc, char **argv) {
  live_init(argc, argv);
  int fds[kCount];
  for (int i = 0; i < kCount; i++) {
    fds[i] = open(kNodes[i].path, kNodes[i].flags);
    CHECK(fds[i] >= 0, "%s", kNodes[i].path);
  }
  live_ready();
  live_wait();

  char bytes[64];
  for (int i = 0; i < kCount; i++) {
    struct stat status;
    CHECK(fstat(fds[i], &status) == 0 && S_ISCHR(status.st_mode), "%s", kNodes[i].path);
    CHECK(major(status.st_rdev) == 1 && minor(status.st_rdev) == kNodes[i].minor, "%s is now another device", kNodes[i].path);
    CHECK((fcntl(fds[i], F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (kNodes[i].flags & (O_ACCMODE | O_NONBLOCK)));
    CHECK(fcntl(fds[i], F_GETFD) == (kNodes[i].flags & O_CLOEXEC ? FD_CLOEXEC : 0));
  }
  CHECK(read(fds[0], bytes, 1) == 0 && write(fds[0], bytes, 5) == 5);
  memset(bytes, 1, sizeof bytes);
  CHECK(read(fds[1], bytes, 8) == 8 && bytes[7] == 0);
  CHECK(write(fds[2], bytes, 1) < 0 && errno == ENOSPC);
  CHECK(read(fds[3], bytes, 8) == 8 && read(fds[4], bytes, 8) == 8);
  live_ok();
}
