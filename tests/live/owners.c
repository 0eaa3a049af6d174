// SPDX-License-Identifier: Apache-2.0
// Signals on I/O, fcntl(2): F_SETOWN to a process and a group, F_SETOWN_EX to a thread, F_SETSIG, O_ASYNC, for pipes
// and a socket; owners that are gone; the user who set it; shared with a child.
#include "live.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static void async(int fd, int type, pid_t pid, int number) {
  struct f_owner_ex owner = {type, pid};
  CHECK(fcntl(fd, F_SETOWN_EX, &owner) == 0 && fcntl(fd, F_SETSIG, number) == 0);
  CHECK(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC) == 0);
}
static int taken(int number, siginfo_t *info) {  // in this thread
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  struct timespec now = {0, 0};
  return sigtimedwait(&set, info, &now) == number;
}
static void must_take(int number, siginfo_t *info) {
  while (!taken(number, info)) live_pause();  // whoever sleeps in sigwait(3) shows another mask meanwhile
}
static void owner_is(int fd, int type, pid_t pid) {
  struct f_owner_ex owner = {-1, -1};
  CHECK(fcntl(fd, F_GETOWN_EX, &owner) == 0 && (int)owner.type == type && owner.pid == pid, "type %d, %d instead of %d", owner.type, owner.pid, pid);
}
static int to_thread[2];
static pid_t thread_id;
static struct live_gate set_up;
static void *thread_main(void *unused) {
  siginfo_t info;
  thread_id = syscall(SYS_gettid);
  async(to_thread[0], F_OWNER_TID, thread_id, SIGRTMIN + 1);
  live_gate_pass_in_thread(set_up);
  must_take(SIGRTMIN + 1, &info);  // waits here while dumped
  CHECK(info.si_fd == to_thread[0]);
  return unused;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  sigset_t all;
  sigfillset(&all);
  CHECK(sigprocmask(SIG_BLOCK, &all, NULL) == 0);
  setpgid(0, 0);
  int plain[2], group[2], gone[2], off[2], foreign[2], go[2];
  CHECK(pipe(plain) == 0 && pipe(group) == 0 && pipe(to_thread) == 0 && pipe(gone) == 0 && pipe(off) == 0 && pipe(foreign) == 0 && pipe(go) == 0);
  async(plain[0], F_OWNER_PID, getpid(), 0);
  async(group[0], F_OWNER_PGRP, getpgid(0), SIGRTMIN + 2);
  struct f_owner_ex self = {F_OWNER_PID, getpid()};
  CHECK(fcntl(off[0], F_SETOWN_EX, &self) == 0 && fcntl(off[0], F_SETSIG, SIGRTMIN + 4) == 0);  // not O_ASYNC
  CHECK(seteuid(7) == 0);
  async(foreign[0], F_OWNER_PID, getpid(), SIGRTMIN + 5);
  CHECK(seteuid(0) == 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int socket_fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct ifreq lo = {.ifr_name = "lo"};
  CHECK(ioctl(socket_fd, SIOCGIFFLAGS, &lo) == 0);
  lo.ifr_flags |= IFF_UP;
  CHECK(ioctl(socket_fd, SIOCSIFFLAGS, &lo) == 0);
  CHECK(bind(socket_fd, (void *)&address, size) == 0 && getsockname(socket_fd, (void *)&address, &size) == 0);
  async(socket_fd, F_OWNER_PID, getpid(), SIGRTMIN + 6);

  pid_t dead = fork();
  if (dead == 0) _exit(0);
  async(gone[0], F_OWNER_PID, dead, SIGRTMIN + 3);
  live_reap_ok(dead);
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    siginfo_t info;
    char byte;
    live_gate_pass(gate);
    CHECK(read(go[0], &byte, 1) == 1);
    must_take(SIGRTMIN + 2, &info);
    CHECK(info.si_fd == group[0] && !taken(SIGIO, &info));
    CHECK(write(plain[1], "y", 1) == 1);  // the parent's
    _exit(0);
  }
  live_gate_await(gate, 1);
  set_up = live_gate_open();
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, thread_main, NULL) == 0);
  live_gate_await_thread(set_up);
  live_ready();
  live_wait();

  siginfo_t info;
  for (int i = SIGRTMIN; i <= SIGRTMAX; i++) CHECK(!taken(i, &info), "signal %d came with the restore", i);
  CHECK(!taken(SIGIO, &info));
  owner_is(plain[0], F_OWNER_PID, getpid()), owner_is(group[0], F_OWNER_PGRP, getpgid(0));
  owner_is(to_thread[0], F_OWNER_TID, thread_id), owner_is(off[0], F_OWNER_PID, getpid());
  struct f_owner_ex owner;
  CHECK(fcntl(gone[0], F_GETOWN_EX, &owner) == 0 && owner.pid == 0 && fcntl(gone[0], F_GETSIG) == SIGRTMIN + 3);
  CHECK(fcntl(off[0], F_GETSIG) == SIGRTMIN + 4 && !(fcntl(off[0], F_GETFL) & O_ASYNC) && fcntl(gone[0], F_GETFL) & O_ASYNC);
  uid_t ids[2] = {99, 99};
  CHECK(fcntl(foreign[0], 17 /* F_GETOWNER_UIDS */, ids) == 0 && ids[0] == 0 && ids[1] == 7, "%u %u", ids[0], ids[1]);
  CHECK(fcntl(plain[0], 17, ids) == 0 && ids[0] == 0 && ids[1] == 0);
  CHECK(geteuid() == 0 && fcntl(plain[1], F_GETOWN) == 0);

  CHECK(write(plain[1], "x", 1) == 1);
  must_take(SIGIO, &info);
  CHECK(write(off[1], "x", 1) == 1 && write(gone[1], "x", 1) == 1);
  CHECK(!taken(SIGRTMIN + 4, &info) && !taken(SIGRTMIN + 3, &info));
  CHECK(sendto(socket_fd, "x", 1, 0, (void *)&address, size) == 1);
  must_take(SIGRTMIN + 6, &info);
  CHECK(info.si_fd == socket_fd && info.si_code == POLL_IN);
  CHECK(write(to_thread[1], "x", 1) == 1 && pthread_join(thread, NULL) == 0);
  CHECK(write(group[1], "x", 1) == 1 && write(go[1], "x", 1) == 1);
  must_take(SIGRTMIN + 2, &info);
  must_take(SIGIO, &info);
  live_reap_ok(child);
  live_ok();
}
