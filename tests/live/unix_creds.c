// SPDX-License-Identifier: Apache-2.0
// Who has connected and who has sent: SO_PEERCRED of pairs, clients and servers made by several tasks with ids of their
// own, SCM_CREDENTIALS of queued messages; unix(7).
#include "live.h"
#include <sys/socket.h>
#include <sys/un.h>

static char text[200];

static void set(int fd, int name, int value) { CHECK(setsockopt(fd, SOL_SOCKET, name, &value, sizeof value) == 0); }
static void check_peer(int fd, pid_t pid, uid_t uid, gid_t gid) {
  struct ucred who;
  socklen_t size = sizeof who;
  CHECK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0);
  CHECK(who.pid == pid && who.uid == uid && who.gid == gid, "fd %d: %d %u:%u instead of %d %u:%u", fd, who.pid, who.uid, who.gid, pid,
        uid, gid);
}
static void check_sender(int fd, const char *bytes, pid_t pid, uid_t uid) {
  char control[CMSG_SPACE(sizeof(struct ucred))] = {};
  struct iovec part = {text, sizeof text};
  struct msghdr head = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t n = recvmsg(fd, &head, MSG_DONTWAIT);
  CHECK(n == (ssize_t)strlen(bytes) && memcmp(text, bytes, n) == 0, "%zd bytes instead of \"%s\"", n, bytes);
  struct cmsghdr *c = CMSG_FIRSTHDR(&head);
  CHECK(c && c->cmsg_type == SCM_CREDENTIALS, "\"%s\" is from nobody", bytes);
  struct ucred who;
  memcpy(&who, CMSG_DATA(c), sizeof who);
  CHECK(who.pid == pid && who.uid == uid, "\"%s\": %d %u instead of %d %u", bytes, who.pid, who.uid, pid, uid);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  uid_t uid = getuid(), other = uid + 7;
  gid_t gid = getgid();
  int line[2], news[2], from_child[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, line) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, news) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, from_child) == 0);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  socklen_t size = sizeof(sa_family_t) + 1 + sprintf(address.sun_path + 1, "stasis-live-creds-%d", getpid());
  int server = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(bind(server, (void *)&address, size) == 0 && listen(server, 5) == 0);
  set(news[1], SO_PASSCRED, 1);
  CHECK(send(news[0], "mine", 4, 0) == 4);
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(syscall(SYS_setresgid, gid, other, gid) == 0 && syscall(SYS_setresuid, uid, other, uid) == 0);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(connect(client, (void *)&address, size) == 0);
    check_peer(client, getppid(), uid, gid);
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(send(news[0], "the child's", 11, 0) == 11);
    CHECK(syscall(SYS_setresuid, uid, uid, uid) == 0 && syscall(SYS_setresgid, gid, gid, gid) == 0);
    int late = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(connect(late, (void *)&address, size) == 0);
    live_gate_pass(gate);
    live_wait();
    check_peer(client, getppid(), uid, gid);
    check_peer(pair[0], getpid(), other, other), check_peer(pair[1], getpid(), other, other);
    _exit(0);
  }
  live_gate_await(gate, 1);
  int accepted = accept(server, NULL, NULL);
  CHECK(accepted >= 0);
  CHECK(send(news[0], "mine too", 8, 0) == 8);
  check_peer(accepted, child, other, other);
  live_ready();
  live_wait();

  check_peer(line[0], getpid(), uid, gid), check_peer(line[1], getpid(), uid, gid);
  check_peer(server, getpid(), uid, gid);
  check_peer(accepted, child, other, other);
  int late = accept(server, NULL, NULL);
  CHECK(late >= 0);
  check_peer(late, child, uid, gid);
  check_sender(news[1], "mine", getpid(), uid);
  check_sender(news[1], "the child's", child, uid);
  check_sender(news[1], "mine too", getpid(), uid);
  live_reap_ok(child);
  live_ok();
}
