// SPDX-License-Identifier: Apache-2.0
// Descriptors on their way through unix sockets (SCM_RIGHTS): files that somebody has open and files that nobody has,
// several at once, in the middle of a stream, sockets within sockets, a socket within itself; unix(7).
#include "live.h"
#include <sys/socket.h>

static char text[200];

static void pair(int type, int ends[2]) { CHECK(socketpair(AF_UNIX, type, 0, ends) == 0); }
static void give(int socket, const char *bytes, const int *fds, size_t count) {
  char control[CMSG_SPACE(10 * sizeof(int))] = {};
  struct iovec part = {(char *)bytes, strlen(bytes)};
  struct msghdr head = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(count * sizeof(int))};
  struct cmsghdr *rights = CMSG_FIRSTHDR(&head);
  rights->cmsg_level = SOL_SOCKET, rights->cmsg_type = SCM_RIGHTS, rights->cmsg_len = CMSG_LEN(count * sizeof(int));
  memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
  CHECK(sendmsg(socket, &head, 0) == (ssize_t)strlen(bytes));
}
static size_t take(int socket, const char *bytes, int *fds, size_t limit) {
  char control[CMSG_SPACE(10 * sizeof(int))] = {};
  memset(text, 0, sizeof text);
  struct iovec part = {text, limit};
  struct msghdr head = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t n = recvmsg(socket, &head, MSG_DONTWAIT);
  CHECK(n == (ssize_t)strlen(bytes) && memcmp(text, bytes, n) == 0, "%zd bytes \"%s\" instead of \"%s\"", n, text, bytes);
  struct cmsghdr *rights = CMSG_FIRSTHDR(&head);
  if (!rights) return 0;
  CHECK(rights->cmsg_type == SCM_RIGHTS && !(head.msg_flags & MSG_CTRUNC));
  memcpy(fds, CMSG_DATA(rights), rights->cmsg_len - CMSG_LEN(0));
  return (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  int line[2], messages[2], outer[2], inner[2], loop[2], ends[2], got[20];
  pair(SOCK_STREAM, line), pair(SOCK_DGRAM, messages), pair(SOCK_STREAM, outer), pair(SOCK_STREAM, inner), pair(SOCK_STREAM, loop);
  int file = open(live_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(file >= 0 && write(file, "contents", 8) == 8 && lseek(file, 3, SEEK_SET) == 3);
  int shared = open("/dev/null", O_RDWR);
  CHECK(pipe(ends) == 0 && write(ends[1], "in the pipe", 11) == 11);
  CHECK(send(line[0], "before", 6, 0) == 6);
  give(line[0], "with", (int[]){file, shared, ends[0]}, 3);
  CHECK(send(line[0], "after", 5, 0) == 5);
  close(ends[0]);
  give(messages[0], "file", &file, 1);
  CHECK(send(messages[0], "", 0, 0) == 0);
  give(messages[0], "", &shared, 1);
  close(file);  // lives in the two queues only
  CHECK(send(inner[0], "deep", 4, 0) == 4);
  give(inner[0], "x", &shared, 1);
  give(outer[0], "inner", (int[]){inner[0], inner[1]}, 2);
  close(inner[0]), close(inner[1]);
  give(loop[0], "self", (int[]){loop[1], loop[0]}, 2);
  close(loop[0]);
  live_ready();
  live_wait();

  CHECK(take(line[1], "bef", got, 3) == 0 && take(line[1], "ore", got, 3) == 0, "descriptors come too early");
  CHECK(take(line[1], "with", got, 100) == 3);
  CHECK(lseek(got[0], 0, SEEK_CUR) == 3 && read(got[0], text, 100) == 5 && memcmp(text, "tents", 5) == 0);
  struct stat null, other;
  CHECK(fstat(got[1], &other) == 0 && stat("/dev/null", &null) == 0 && other.st_rdev == null.st_rdev);
  CHECK(read(got[2], text, 100) == 11 && memcmp(text, "in the pipe", 11) == 0);
  CHECK(write(ends[1], "more", 4) == 4 && read(got[2], text, 100) == 4);
  int flags = fcntl(shared, F_GETFL);
  CHECK(fcntl(got[1], F_SETFL, flags | O_NONBLOCK) == 0 && fcntl(shared, F_GETFL) == (flags | O_NONBLOCK), "two descriptions of what was one");
  CHECK(take(line[1], "after", got + 3, 100) == 0);
  CHECK(take(messages[1], "file", got + 3, 100) == 1);
  CHECK(lseek(got[3], 0, SEEK_CUR) == 8, "the file of both queues has two positions");
  CHECK(take(messages[1], "", got, 100) == 0 && take(messages[1], "", got, 100) == 1);

  CHECK(take(outer[1], "inner", got, 100) == 2);
  CHECK(take(got[1], "deep", got + 2, 4) == 0 && take(got[1], "x", got + 2, 100) == 1);
  CHECK(send(got[1], "up", 2, 0) == 2 && recv(got[0], text, 100, 0) == 2);
  CHECK(take(loop[1], "self", got, 100) == 2);
  CHECK(send(got[1], "round", 5, 0) == 5 && recv(loop[1], text, 100, MSG_DONTWAIT) == 5 && memcmp(text, "round", 5) == 0);
  live_ok();
}
