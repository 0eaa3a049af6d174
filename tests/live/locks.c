// SPDX-License-Identifier: Apache-2.0
// File locks: flock(2) shared and exclusive, by a description that tasks share; POSIX ranges, each of its process; those of
// open file descriptions; on a deleted file; and tasks that wait for one; fcntl(2).
#include <sys/file.h>

#include "live.h"

static int open_locked(const char *name) {
  int fd = open(live_path(name), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  CHECK(fd >= 0, "%s", name);
  return fd;
}
static struct flock range(short type, off_t start, off_t length) {
  return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
}
static void set(int fd, int command, short type, off_t start, off_t length) {
  struct flock lock = range(type, start, length);
  CHECK(fcntl(fd, command, &lock) == 0, "fd %d from %ld, %ld bytes", fd, (long)start, (long)length);
}
// Who stands in the way of such a lock, and with what.
static void expect(int fd, int command, short wanted, off_t from, off_t bytes, short type, off_t start, off_t length, pid_t pid) {
  struct flock lock = range(wanted, from, bytes);
  CHECK(fcntl(fd, command, &lock) == 0);
  CHECK(lock.l_type == type, "at %ld: type %d instead of %d", (long)from, lock.l_type, type);
  if (type == F_UNLCK) return;
  CHECK(lock.l_start == start && lock.l_len == length, "at %ld: from %ld, %ld bytes", (long)from, (long)lock.l_start, (long)lock.l_len);
  CHECK(lock.l_pid == pid, "at %ld: of pid %d instead of %d", (long)from, lock.l_pid, pid);
}
static void busy(const char *path, int how) {
  int fd = open(path, O_RDWR | O_CLOEXEC);
  CHECK(fd >= 0, "%s", path);
  CHECK(flock(fd, how | LOCK_NB) < 0 && errno == EWOULDBLOCK, "%s is not locked", path);
  close(fd);
}
static int in_call(pid_t pid, long number) {
  char path[64], text[256];
  snprintf(path, sizeof path, "/proc/%d/syscall", pid);
  return atol(live_read_file(path, text, sizeof text)) == number;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  pid_t parent = getpid();
  int whole = open_locked("whole"), whole_twin = fcntl(whole, F_DUPFD_CLOEXEC, 50);
  int shared_a = open_locked("shared"), shared_b = open_locked("shared"), shared_c = open_locked("shared");
  int ranges = open_locked("ranges"), ranges_twin = dup(ranges), ranges_again = open_locked("ranges");
  int described = open_locked("described"), described_other = open_locked("described");
  int gone = open_locked("gone");
  CHECK(unlink(live_path("gone")) == 0);
  CHECK(flock(whole, LOCK_EX) == 0 && flock(shared_a, LOCK_SH) == 0 && flock(shared_b, LOCK_SH) == 0 && flock(gone, LOCK_EX) == 0);
  set(ranges, F_SETLK, F_WRLCK, 0, 10);
  set(ranges_again, F_SETLK, F_RDLCK, 20, 5);
  set(ranges_twin, F_SETLK, F_RDLCK, 1l << 40, 0);
  set(described, F_OFD_SETLK, F_WRLCK, 5, 5);
  set(described, F_OFD_SETLK, F_RDLCK, 100, 0);
  int done[2];
  CHECK(pipe2(done, O_NONBLOCK | O_CLOEXEC) == 0);

  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    set(ranges_again, F_SETLK, F_WRLCK, 12, 4);
    close(whole_twin);
    live_gate_pass(gate);
    live_wait();
    while (access(live_path("checked"), F_OK)) live_pause();
    expect(ranges, F_GETLK, F_WRLCK, 0, 1, F_WRLCK, 0, 10, parent);
    expect(ranges, F_GETLK, F_WRLCK, 10, 10, F_UNLCK, 0, 0, 0);
    expect(ranges, F_GETLK, F_WRLCK, 22, 1, F_RDLCK, 20, 5, parent);
    expect(ranges, F_GETLK, F_RDLCK, 22, 1, F_UNLCK, 0, 0, 0);
    expect(ranges, F_GETLK, F_WRLCK, 1l << 50, 1, F_RDLCK, 1l << 40, 0, parent);
    _exit(0);
  }
  pid_t posix_waiter = fork();
  CHECK(posix_waiter >= 0);
  if (posix_waiter == 0) {
    set(ranges, F_SETLKW, F_WRLCK, 0, 1);
    _exit(write(done[1], "p", 1) == 1 ? 0 : 1);
  }
  pid_t flock_waiter = fork();
  CHECK(flock_waiter >= 0);
  if (flock_waiter == 0) {
    close(whole), close(whole_twin);
    int fd = open(live_path("whole"), O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    _exit(write(done[1], "f", 1) == 1 ? 0 : 1);
  }
  live_gate_await(gate, 1);
  while (!in_call(posix_waiter, SYS_fcntl) || !in_call(flock_waiter, SYS_flock)) live_pause();
  live_ready();
  live_wait();

  char byte, own[64];
  CHECK(read(done[0], &byte, 1) < 0 && errno == EAGAIN, "a waiter went on");
  busy(live_path("whole"), LOCK_SH);
  busy(live_path("shared"), LOCK_EX);
  snprintf(own, sizeof own, "/proc/self/fd/%d", gone);
  busy(own, LOCK_SH);
  CHECK(flock(shared_c, LOCK_SH | LOCK_NB) == 0 && flock(shared_c, LOCK_UN) == 0, "locked exclusively");
  CHECK(flock(shared_a, LOCK_UN) == 0);
  busy(live_path("shared"), LOCK_EX);  // the other description's
  CHECK(flock(shared_b, LOCK_UN) == 0 && flock(shared_c, LOCK_EX | LOCK_NB) == 0);
  expect(ranges, F_GETLK, F_RDLCK, 14, 1, F_WRLCK, 12, 4, child);
  expect(described_other, F_OFD_GETLK, F_RDLCK, 0, 10, F_WRLCK, 5, 5, -1);
  expect(described_other, F_OFD_GETLK, F_WRLCK, 1000, 1, F_RDLCK, 100, 0, -1);
  expect(described_other, F_OFD_GETLK, F_WRLCK, 0, 5, F_UNLCK, 0, 0, 0);
  expect(described, F_OFD_GETLK, F_WRLCK, 0, 0, F_UNLCK, 0, 0, 0);
  close(open_locked("checked"));
  live_reap_ok(child);

  set(ranges, F_SETLK, F_UNLCK, 0, 10);
  live_reap_ok(posix_waiter);
  CHECK(read(done[0], &byte, 1) == 1 && byte == 'p');
  close(whole);
  CHECK(read(done[0], &byte, 1) < 0 && errno == EAGAIN, "the lock went with one of two descriptors");
  CHECK(flock(whole_twin, LOCK_UN) == 0);
  live_reap_ok(flock_waiter);
  CHECK(read(done[0], &byte, 1) == 1 && byte == 'f');
  live_ok();
}
