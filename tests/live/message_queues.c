// SPDX-License-Identifier: Apache-2.0
// POSIX message queues: limits, owner, mode, messages by priority and age; unlinked ones, ones that nobody has open,
// shared descriptors, tasks that wait for a message or for room; a mount that shows them; mq_overview(7).
#include "live.h"
#include <mqueue.h>
#include <sys/mount.h>

static void put(mqd_t q, const char *text, unsigned priority) {
  CHECK(mq_send(q, text, strlen(text), priority) == 0, "%s", text);
}
static void take(mqd_t q, const char *text, unsigned priority) {
  char buffer[8192];
  unsigned got = 0;
  ssize_t n = mq_receive(q, buffer, sizeof buffer, &got);
  CHECK(n == (ssize_t)strlen(text) && !memcmp(buffer, text, n) && got == priority, "%zd bytes, priority %u, not %s", n, got, text);
}
static void none(mqd_t q) {
  char buffer[8192];
  struct timespec past = {1, 0};
  CHECK(mq_timedreceive(q, buffer, sizeof buffer, NULL, &past) < 0 && (errno == ETIMEDOUT || errno == EAGAIN));
}
static mqd_t make(const char *name, int flags, long most, long size) {
  struct mq_attr a = {.mq_maxmsg = most, .mq_msgsize = size};
  mqd_t q = mq_open(name, flags | O_CREAT | O_EXCL, 0600, &a);
  CHECK(q >= 0, "%s", name);
  return q;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  const char *mountpoint = live_path("queues"), *by_path = live_path("queues/first");
  CHECK(mkdir(mountpoint, 0700) == 0 && mount("mqueue", mountpoint, "mqueue", 0, NULL) == 0);
  mqd_t first = make("/first", O_RDWR, 6, 100), gone = make("/gone", O_RDWR, 3, 8), full = make("/full", O_RDWR, 2, 9);
  mqd_t empty = make("/empty", O_RDWR, 1, 10), closed = make("/closed", O_WRONLY, 2, 8192), one = make("/one", O_RDWR, 1, 4);
  CHECK(fchown(first, 1234, 4321) == 0 && fchmod(first, 0624) == 0);
  put(first, "b1", 3), put(first, "c", 0), put(first, "a", 32767), put(first, "b2", 3), put(first, "", 3);
  put(gone, "unlinked", 1), put(gone, "twice", 1);
  put(closed, "nobody", 9), put(one, "last", 5);
  CHECK(mq_close(closed) == 0 && mq_unlink("/gone") == 0);
  mqd_t again = make("/gone", O_WRONLY | O_CLOEXEC, 1, 1);  // the name of the other
  mqd_t reader = mq_open("/first", O_RDONLY | O_NONBLOCK), same = dup(first);
  int status = open(by_path, O_RDONLY | O_CLOEXEC);
  CHECK(reader >= 0 && same >= 0 && status >= 0);
  char self[64];
  snprintf(self, sizeof self, "/proc/self/fd/%d", gone);
  mqd_t other_gone = open(self, O_WRONLY);
  CHECK(other_gone >= 0);

  struct live_gate gate = live_gate_open();
  pid_t receiver = fork();
  if (receiver == 0) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 3600;
    live_gate_pass(gate);
    char buffer[10];
    CHECK(mq_timedreceive(empty, buffer, sizeof buffer, NULL, &end) == 5 && !memcmp(buffer, "waits", 5));
    _exit(0);
  }
  put(full, "1", 0), put(full, "2", 0);
  pid_t sender = fork();
  if (sender == 0) {
    live_gate_pass(gate);
    put(full, "3", 1);  // no room until the parent makes some
    _exit(0);
  }
  live_gate_await(gate, 2);
  live_ready();
  live_wait();

  struct mq_attr a;
  struct stat st;
  CHECK(mq_getattr(first, &a) == 0 && a.mq_maxmsg == 6 && a.mq_msgsize == 100 && a.mq_curmsgs == 5 && a.mq_flags == 0);
  CHECK(mq_getattr(reader, &a) == 0 && a.mq_flags == O_NONBLOCK && mq_send(reader, "x", 1, 0) < 0 && errno == EBADF);
  CHECK(fstat(first, &st) == 0 && st.st_uid == 1234 && st.st_gid == 4321 && (st.st_mode & 07777) == 0624);
  char text[256] = "";
  CHECK(pread(status, text, sizeof text - 1, 0) > 0 && strncmp(text, "QSIZE:6 ", 8) == 0, "%s", text);
  CHECK(fcntl(status, F_GETFD) == FD_CLOEXEC && stat(by_path, &st) == 0 && st.st_uid == 1234);
  a.mq_flags = O_NONBLOCK;
  CHECK(mq_setattr(same, &a, NULL) == 0 && mq_getattr(first, &a) == 0 && a.mq_flags == O_NONBLOCK, "one open file");
  take(reader, "a", 32767), take(first, "b1", 3), take(same, "b2", 3), take(reader, "", 3), take(first, "c", 0);
  none(first);

  put(other_gone, "more", 0);
  take(gone, "unlinked", 1), take(gone, "twice", 1), take(gone, "more", 0);
  CHECK(fstat(gone, &st) == 0 && st.st_nlink == 0);
  CHECK(mq_getattr(again, &a) == 0 && a.mq_maxmsg == 1 && a.mq_msgsize == 1 && fcntl(again, F_GETFD) == FD_CLOEXEC);
  closed = mq_open("/closed", O_RDONLY);
  CHECK(closed >= 0 && mq_getattr(closed, &a) == 0 && a.mq_curmsgs == 1 && a.mq_msgsize == 8192);
  take(closed, "nobody", 9);
  take(one, "last", 5);
  none(one);

  take(full, "1", 0);
  live_reap_ok(sender);
  take(full, "3", 1), take(full, "2", 0);
  put(empty, "waits", 0);
  live_reap_ok(receiver);
  CHECK(mq_unlink("/first") == 0 && access(by_path, F_OK) < 0, "the mount shows others");
  live_ok();
}
