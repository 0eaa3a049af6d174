// SPDX-License-Identifier: Apache-2.0
// pidfd_open(2): of itself, a child, a zombie, one that is gone, a thread; PIDFD_NONBLOCK; shared with a child; dup'ed;
// watched by an epoll, also under a number that is another file's by now.
#include "live.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>

static int open_pidfd(pid_t pid, unsigned flags) { return syscall(SYS_pidfd_open, pid, flags); }
static int tell(int fd, int signal) { return syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0); }
static int ended(int fd) { return poll(&(struct pollfd){fd, POLLIN, 0}, 1, 0); }
static long pid_of(int fd) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  const char *at = strstr(live_read_file(path, text, sizeof text), "Pid:");
  CHECK(at);
  return atol(at + 4);
}
static pid_t thread_id;
static struct live_gate thread_up;
static int go[2];
static void *thread_main(void *unused) {
  thread_id = syscall(SYS_gettid);
  live_gate_pass_in_thread(thread_up);
  char byte;
  CHECK(read(go[0], &byte, 1) == 1);
  return unused;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  int self = open_pidfd(getpid(), 0), epoll = epoll_create1(0), asked[2];
  CHECK(self >= 0 && fcntl(self, F_GETFD) == FD_CLOEXEC && pipe(asked) == 0 && pipe(go) == 0);
  pid_t gone = fork();
  if (gone == 0) _exit(3);
  int of_gone = open_pidfd(gone, 0);
  siginfo_t info;
  CHECK(waitid(P_PIDFD, of_gone, &info, WEXITED) == 0 && info.si_status == 3 && ended(of_gone));
  pid_t zombie = fork();
  if (zombie == 0) _exit(5);
  CHECK(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT) == 0);
  int of_zombie = open_pidfd(zombie, 0);
  pid_t first = fork();
  if (first == 0) {
    for (;;) pause();
  }
  int of_first = open_pidfd(first, 0x800 /* PIDFD_NONBLOCK */), twin = dup(of_first);
  CHECK(of_first >= 0 && of_zombie >= 0 && fcntl(twin, F_SETFD, 0) == 0);
  pid_t second = fork();
  CHECK(second >= 0);
  if (second == 0) {
    char byte;
    CHECK(read(asked[0], &byte, 1) == 1);
    CHECK(pid_of(of_first) == first && pid_of(self) == getppid() && tell(of_first, 0) == 0 && tell(self, 0) == 0);
    CHECK(fcntl(of_first, F_SETFL, 0) == 0);  // one open file with the parent
    _exit(0);
  }
  int of_second = open_pidfd(second, 0), number = dup(of_second);
  struct epoll_event event = {EPOLLIN, {.u64 = 77}};
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, number, &event) == 0);
  CHECK(dup2(asked[0], number) == number);
  thread_up = live_gate_open();
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, thread_main, NULL) == 0);
  live_gate_await_thread(thread_up);
  int of_thread = open_pidfd(thread_id, O_EXCL /* PIDFD_THREAD */);  // Linux 6.9
  live_ready();
  live_wait();

  CHECK(pid_of(self) == getpid() && pid_of(of_first) == first && pid_of(twin) == first && pid_of(of_second) == second);
  CHECK(pid_of(of_zombie) == zombie && pid_of(of_gone) == -1, "%ld %ld", pid_of(of_zombie), pid_of(of_gone));
  CHECK(fcntl(self, F_GETFD) == FD_CLOEXEC && fcntl(twin, F_GETFD) == 0);
  CHECK(fcntl(of_first, F_GETFL) & O_NONBLOCK && !(fcntl(of_second, F_GETFL) & O_NONBLOCK));
  CHECK(tell(self, 0) == 0 && tell(of_first, 0) == 0 && tell(of_gone, 0) < 0 && errno == ESRCH);
  CHECK(!ended(self) && !ended(of_first) && ended(of_gone) && ended(of_zombie) && epoll_wait(epoll, &event, 1, 0) == 0);
  CHECK(waitid(P_PIDFD, of_zombie, &info, WEXITED) == 0 && info.si_pid == zombie && info.si_status == 5);
  CHECK(waitid(P_PIDFD, of_first, &info, WEXITED) < 0 && errno == EAGAIN, "not PIDFD_NONBLOCK");
  if (of_thread >= 0) {
    CHECK(pid_of(of_thread) == thread_id && fcntl(of_thread, F_GETFL) & O_EXCL && !ended(of_thread));
    CHECK(write(go[1], "x", 1) == 1 && pthread_join(thread, NULL) == 0);
    CHECK(poll(&(struct pollfd){of_thread, POLLIN, 0}, 1, -1) == 1);
  }
  CHECK(write(asked[1], "x", 1) == 1);
  CHECK(epoll_wait(epoll, &event, 1, -1) == 1 && event.data.u64 == 77 && event.events & EPOLLIN && ended(of_second));
  live_reap_ok(second);
  CHECK(!(fcntl(twin, F_GETFL) & O_NONBLOCK), "the child has another open file");
  CHECK(tell(twin, SIGTERM) == 0 && waitid(P_PIDFD, of_first, &info, WEXITED) == 0 && info.si_status == SIGTERM);
  live_ok();
}
