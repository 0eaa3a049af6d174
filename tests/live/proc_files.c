// SPDX-License-Identifier: Apache-2.0
// Open files of /proc: of the task itself, of its child, their directories, and such as belong to nobody; proc(5).
#include "live.h"

static int open_proc(const char *path, int flags) {
  int fd = open(path, flags | O_CLOEXEC);
  CHECK(fd >= 0, "%s", path);
  return fd;
}
static void holds(int fd, const char *text) {
  char buffer[4096] = "";
  ssize_t n = pread(fd, buffer, sizeof buffer - 1, 0);
  CHECK(n > 0 && strstr(buffer, text), "fd %d has no \"%s\" but \"%.60s\"", fd, text, buffer);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  char path[64], pid_line[64], child_line[64];
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    int own = open_proc("/proc/self/stat", O_RDONLY);
    live_gate_pass(gate);
    live_wait();
    snprintf(path, sizeof path, "%d (", getpid());
    holds(own, path);
    while (access(live_path("checked"), F_OK)) live_pause();
    _exit(0);
  }
  live_gate_await(gate, 1);
  snprintf(pid_line, sizeof pid_line, "Pid:\t%d\n", getpid());
  snprintf(child_line, sizeof child_line, "Pid:\t%d\n", child);
  int status = open_proc("/proc/self/status", O_RDONLY), twin = fcntl(status, F_DUPFD, 60);
  snprintf(path, sizeof path, "/proc/%d/status", child);
  int of_child = open_proc(path, O_RDONLY | O_NONBLOCK);
  int comm = open_proc("/proc/self/comm", O_RDWR), table = open_proc("/proc/self/fd", O_RDONLY | O_DIRECTORY);
  int reference = open_proc("/proc/self", O_PATH), uptime = open_proc("/proc/uptime", O_RDONLY), sys = open_proc("/proc/sys/kernel/ostype", O_RDONLY);
  char start[8];
  CHECK(read(status, start, 5) == 5 && memcmp(start, "Name:", 5) == 0);
  live_ready();
  live_wait();

  CHECK(fcntl(twin, F_GETFD) == 0 && fcntl(status, F_GETFD) == FD_CLOEXEC);
  CHECK(lseek(twin, 0, SEEK_CUR) == 5 && lseek(status, 1, SEEK_SET) == 1 && lseek(twin, 0, SEEK_CUR) == 1, "not the same file");
  holds(status, pid_line);
  holds(of_child, child_line);
  CHECK(fcntl(of_child, F_GETFL) & O_NONBLOCK);
  CHECK(write(comm, "renamed", 7) == 7);
  CHECK(prctl(PR_GET_NAME, path) == 0 && strcmp(path, "renamed") == 0, "%s", path);
  snprintf(path, sizeof path, "%d", twin);
  CHECK(faccessat(table, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0, "not this task's");
  int fd = openat(reference, "status", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  holds(fd, pid_line);
  holds(uptime, ".");
  holds(sys, "Linux");
  close(open(live_path("checked"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  live_reap_ok(child);
  live_ok();
}
