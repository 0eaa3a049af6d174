// SPDX-License-Identifier: Apache-2.0
// Descriptors of /proc/PID/ns/*, of every namespace that the task is in: they still are.
#include "live.h"

static const char *const kNames[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};
enum { kCount = sizeof kNames / sizeof *kNames };

int main(int argc, char **argv) {
  live_init(argc, argv);
  int fds[kCount];
  char path[64];
  struct stat own, held;
  for (int i = 0; i < kCount; i++) {
    snprintf(path, sizeof path, "/proc/self/ns/%s", kNames[i]);
    fds[i] = open(path, O_RDONLY | (i % 2 ? O_CLOEXEC : 0));
    CHECK(fds[i] >= 0 || errno == ENOENT, "%s", path);
  }
  live_ready();
  live_wait();
  for (int i = 0; i < kCount; i++) {
    if (fds[i] < 0) continue;
    snprintf(path, sizeof path, "/proc/self/ns/%s", kNames[i]);
    CHECK(stat(path, &own) == 0 && fstat(fds[i], &held) == 0 && own.st_dev == held.st_dev && own.st_ino == held.st_ino, "%s", path);
    CHECK(fcntl(fds[i], F_GETFD) == (i % 2 ? FD_CLOEXEC : 0) && (fcntl(fds[i], F_GETFL) & O_ACCMODE) == O_RDONLY);
  }
  if (fds[7] >= 0) CHECK(setns(fds[7], CLONE_NEWUTS) == 0 || errno == EPERM);
  live_ok();
}
