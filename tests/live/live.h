// SPDX-License-Identifier: Apache-2.0
// What every live program shares. `PROGRAM READY GO RESULT`: set the object up, live_ready(),
// live_wait() until the runner has checkpointed and restored, verify, live_ok(). Any process of
// the program may CHECK; the first word written to RESULT stays.
#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *live_ready_path, *live_go_path, *live_result_path;
static char live_argument[4096];  // what the runner wrote into GO

__attribute__((unused)) static void live_init(int argc, char** argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: %s READY GO RESULT\n", argv[0]);
    exit(2);
  }
  live_ready_path = argv[1];
  live_go_path = argv[2];
  live_result_path = argv[3];
}

// Whole or not at all, and only if nobody was first.
static int live_publish(const char* path, const char* text) {
  char temporary[PATH_MAX];
  snprintf(temporary, sizeof temporary, "%s.%d.%ld", path, getpid(), syscall(SYS_gettid));
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return -1;
  int bad = write(fd, text, strlen(text)) != (ssize_t)strlen(text);
  close(fd);
  int rc = bad ? -1 : link(temporary, path);
  unlink(temporary);
  return rc;
}

__attribute__((unused, noreturn, format(printf, 1, 2))) static void live_fail(const char* format, ...) {
  char text[2048] = "FAIL: ";
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + 6, sizeof text - 6, format, arguments);
  va_end(arguments);
  live_publish(live_result_path, text);
  _exit(1);
}

#define CHECK(condition, ...)                                                                                        \
  do {                                                                                                               \
    if (!(condition)) {                                                                                              \
      int live_errno = errno;                                                                                        \
      char live_detail[1024];                                                                                        \
      snprintf(live_detail, sizeof live_detail, "" __VA_ARGS__);                                                     \
      live_fail("%s:%d: %s: %s (errno %s)", __FILE_NAME__, __LINE__, #condition, live_detail, strerror(live_errno)); \
    }                                                                                                                \
  } while (0)
#ifndef __FILE_NAME__
#define __FILE_NAME__ (strrchr(__FILE__, '/') ? strrchr(__FILE__, '/') + 1 : __FILE__)
#endif

__attribute__((unused)) static void live_pause(void) {
  struct timespec ten_ms = {0, 10 * 1000 * 1000};
  nanosleep(&ten_ms, NULL);
}

__attribute__((unused)) static void live_ready(void) {
  if (live_publish(live_ready_path, "ready")) live_fail("cannot write %s: %s", live_ready_path, strerror(errno));
}

// Returns when GO exists; its content is in live_argument.
__attribute__((unused)) static void live_wait(void) {
  while (access(live_go_path, F_OK)) live_pause();
  int fd = open(live_go_path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) live_fail("open %s: %s", live_go_path, strerror(errno));
  ssize_t n = read(fd, live_argument, sizeof live_argument - 1);
  live_argument[n > 0 ? n : 0] = 0;
  close(fd);
}

__attribute__((unused, noreturn)) static void live_ok(void) { _exit(live_publish(live_result_path, "ok") ? 1 : 0); }

// A child that must end with status 0; it has written its own FAIL otherwise.
__attribute__((unused)) static void live_reap_ok(pid_t pid) {
  int status = 0;
  pid_t got;
  do got = waitpid(pid, &status, 0);
  while (got < 0 && errno == EINTR);
  CHECK(got == pid, "waitpid %d gave %d", pid, got);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d ended with wait status %#x", pid, status);
}

// A pipe that children use to say that they are set up.
struct live_gate {
  int read_end, write_end;
};
__attribute__((unused)) static struct live_gate live_gate_open(void) {
  int ends[2];
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  return (struct live_gate){ends[0], ends[1]};
}
__attribute__((unused)) static void live_gate_pass(struct live_gate gate) {
  CHECK(write(gate.write_end, "x", 1) == 1);
  close(gate.write_end);
  close(gate.read_end);
}
// The same between two threads, which have one table of files: the one only writes, the other closes.
__attribute__((unused)) static void live_gate_pass_in_thread(struct live_gate gate) { CHECK(write(gate.write_end, "x", 1) == 1); }
__attribute__((unused)) static void live_gate_await_thread(struct live_gate gate) {
  char byte;
  CHECK(read(gate.read_end, &byte, 1) == 1, "a thread did not get set up");
  close(gate.read_end);
  close(gate.write_end);
}
__attribute__((unused)) static void live_gate_await(struct live_gate gate, int count) {
  char byte;
  close(gate.write_end);
  while (count-- > 0) CHECK(read(gate.read_end, &byte, 1) == 1, "a child did not get set up");
  close(gate.read_end);
}

__attribute__((unused)) static char* live_read_file(const char* path, char* buffer, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0, "open %s", path);
  size_t total = 0;
  ssize_t n;
  while (total < size - 1 && (n = read(fd, buffer + total, size - 1 - total)) > 0) total += n;
  buffer[total] = 0;
  close(fd);
  return buffer;
}

// A file of the program's own, beside RESULT.
__attribute__((unused)) static char* live_path(const char* name) {
  char* path = malloc(PATH_MAX);
  snprintf(path, PATH_MAX, "%.*s/%s", (int)(strrchr(live_result_path, '/') - live_result_path), live_result_path, name);
  return path;
}
