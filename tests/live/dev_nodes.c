// SPDX-License-Identifier: Apache-2.0
// The character devices every container has: null, zero, full, random, urandom; null(4), random(4). And the kernel's
// log, where there is one that may be read: who writes to it, and who has read all of it. And the block device that a
// further argument names.
#include "live.h"
#include <sys/sysmacros.h>

static const struct { const char *path; int flags; unsigned minor; } kNodes[] = {
    {"/dev/null", O_RDWR, 3}, {"/dev/zero", O_RDONLY | O_CLOEXEC, 5}, {"/dev/full", O_RDWR | O_NONBLOCK, 7},
    {"/dev/random", O_RDONLY, 8}, {"/dev/urandom", O_RDONLY, 9}};
enum { kCount = sizeof kNodes / sizeof *kNodes };

// Reads the kernel's log, each message once, until the one that the parent has written.
static pid_t read_log(struct live_gate gate, const char *wanted) {
  pid_t pid = fork();
  if (pid) return pid;
  char line[8192];
  long long last = -1, priority, number;
  int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK), ready = 0;
  CHECK(fd >= 0);
  while (1) {
    ssize_t n = read(fd, line, sizeof line - 1);
    if (n < 0 && errno == EPIPE) continue;
    if (n < 0 && errno == EAGAIN && !ready) {
      CHECK(fcntl(fd, F_SETFL, 0) == 0);
      ready = 1, live_gate_pass(gate);
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    CHECK(n > 0);
    line[n] = 0;
    CHECK(sscanf(line, "%lld,%lld,", &priority, &number) == 2 && number > last, "message %lld after %lld", number, last);
    last = number;
    if (strstr(line, wanted)) _exit(0);
  }
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  int fds[kCount];
  for (int i = 0; i < kCount; i++) {
    fds[i] = open(kNodes[i].path, kNodes[i].flags);
    CHECK(fds[i] >= 0, "%s", kNodes[i].path);
  }
  int log = open("/dev/kmsg", O_WRONLY), readable = access("/dev/kmsg", R_OK) == 0;
  char wanted[64];
  pid_t child = -1;
  snprintf(wanted, sizeof wanted, "<7>stasis live test %d %s\n", getpid(), live_ready_path + strlen(live_ready_path) / 2);
  if (log >= 0 && readable) {
    struct live_gate gate = live_gate_open();
    child = read_log(gate, wanted + 3);
    live_gate_await(gate, 1);
  }
  int disk = argc > 4 ? open(argv[4], O_RDWR | O_CLOEXEC) : -1;
  CHECK(argc <= 4 || (disk >= 0 && write(disk, kNodes, sizeof kNodes) == sizeof kNodes && lseek(disk, 5, SEEK_SET) == 5));
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
  if (disk >= 0) {
    char now[sizeof kNodes - 5];
    CHECK(fcntl(disk, F_GETFD) == FD_CLOEXEC && read(disk, now, sizeof now) == sizeof now);
    CHECK(memcmp(now, (const char *)kNodes + 5, sizeof now) == 0, "another position");
  }
  if (log >= 0) CHECK((fcntl(log, F_GETFL) & O_ACCMODE) == O_WRONLY && write(log, wanted, strlen(wanted)) > 0);
  if (child > 0) live_reap_ok(child);
  live_ok();
}
