// SPDX-License-Identifier: Apache-2.0
// What others see of a task: its name, command line, environment, auxiliary vector and exe link; proc(5).
#include "live.h"
#include <elf.h>
#include <sys/auxv.h>

static void compare(const char *file, const char *was, size_t size) {
  char now[65536];
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0, "%s", file);
  ssize_t n = read(fd, now, sizeof now);
  close(fd);
  CHECK(n == (ssize_t)size && memcmp(now, was, size) == 0, "%s: %zu -> %zd bytes", file, size, n);
}
static size_t slurp(const char *file, char *into, size_t size) {
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0, "%s", file);
  ssize_t n = read(fd, into, size);
  CHECK(n > 0, "%s", file);
  close(fd);
  return n;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  static char cmdline[65536], environment[65536], auxv[4096], exe[PATH_MAX], exe_now[PATH_MAX];
  CHECK(prctl(PR_SET_NAME, "odd name) R (") == 0);
  argv[0][0] = 'X';  // processes that rewrite their argv
  size_t cmdline_size = slurp("/proc/self/cmdline", cmdline, sizeof cmdline);
  size_t environment_size = slurp("/proc/self/environ", environment, sizeof environment);
  size_t auxv_size = slurp("/proc/self/auxv", auxv, sizeof auxv);
  CHECK(readlink("/proc/self/exe", exe, sizeof exe - 1) > 0);
  char stat_before[2048], stat_after[2048];
  live_read_file("/proc/self/stat", stat_before, sizeof stat_before);
  live_ready();
  live_wait();

  char name[17] = "";
  CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "odd name) R (") == 0, "name %s", name);
  compare("/proc/self/cmdline", cmdline, cmdline_size);
  compare("/proc/self/environ", environment, environment_size);
  compare("/proc/self/auxv", auxv, auxv_size);
  CHECK(readlink("/proc/self/exe", exe_now, sizeof exe_now - 1) > 0 && strcmp(exe, exe_now) == 0, "exe %s", exe_now);
  // Fields 26-28 and 45-51: code, data, heap, argument and environment limits.
  live_read_file("/proc/self/stat", stat_after, sizeof stat_after);
  char *a = strrchr(stat_before, ')') + 1, *b = strrchr(stat_after, ')') + 1, *save_a, *save_b;
  a = strtok_r(a, " \n", &save_a);
  b = strtok_r(b, " \n", &save_b);
  for (int field = 3; a && b; field++) {
    if ((field >= 26 && field <= 28) || (field >= 45 && field <= 51)) CHECK(strcmp(a, b) == 0, "stat field %d: %s -> %s", field, a, b);
    a = strtok_r(NULL, " \n", &save_a);
    b = strtok_r(NULL, " \n", &save_b);
  }
  live_ok();
}
