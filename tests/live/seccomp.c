// SPDX-License-Identifier: Apache-2.0
// Seccomp filters: one inherited over fork, two stacked (the newer decides first), one in a thread only
// with a flag, and a parent without any; seccomp(2).
#include "live.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/utsname.h>

// "system call NR fails with ERROR, all else is allowed"
static void forbid(int nr, int error, unsigned flags) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program) == 0);
}
static int fails_with(int nr) {
  struct utsname name;
  char link[8];
  errno = 0;
  long rc = nr == SYS_uname ? syscall(nr, &name) : nr == SYS_readlink ? syscall(nr, "/proc/self", link, sizeof link) : syscall(nr, 0);
  return rc < 0 ? errno : 0;
}
static int mode(void) {
  char text[8192], *at = strstr(live_read_file("/proc/thread-self/status", text, sizeof text), "\nSeccomp:");
  return at ? atoi(at + 9) : -1;
}
static int filters(void) {
  char text[8192], *at = strstr(live_read_file("/proc/thread-self/status", text, sizeof text), "\nSeccomp_filters:");
  return at ? atoi(at + 17) : -1;
}

static struct live_gate thread_gate;
static void *filtered_thread(void *unused) {
  (void)unused;
  forbid(SYS_getsid, ENOTTY, SECCOMP_FILTER_FLAG_LOG);
  live_gate_pass_in_thread(thread_gate);
  while (access(live_go_path, F_OK)) live_pause();
  CHECK(fails_with(SYS_getsid) == ENOTTY && filters() == 1, "the thread's own filter is gone");
  return NULL;
}

static void filtered_child(struct live_gate gate) {
  forbid(SYS_uname, EPERM, 0);
  pid_t inheritor = fork();
  if (inheritor == 0) {
    forbid(SYS_getpgid, EDOM, 0);
    forbid(SYS_uname, EXDEV, 0);  // of several ERRNO answers the newest filter decides
    live_gate_pass(gate);
    live_wait();
    CHECK(mode() == 2 && filters() == 3, "%d filters", filters());
    CHECK(fails_with(SYS_uname) == EXDEV && fails_with(SYS_getpgid) == EDOM && fails_with(SYS_getsid) == 0);
    _exit(0);
  }
  live_gate_pass(gate);
  live_wait();
  CHECK(mode() == 2 && filters() == 1, "%d filters", filters());
  CHECK(fails_with(SYS_uname) == EPERM, "a forbidden call gave %d", fails_with(SYS_uname));
  CHECK(fails_with(SYS_getpgid) == 0 && fails_with(SYS_getsid) == 0);
  live_reap_ok(inheritor);
  _exit(0);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) filtered_child(gate);
  live_gate_await(gate, 2);
  pid_t threaded = fork();
  CHECK(threaded >= 0);
  thread_gate = live_gate_open();
  if (threaded == 0) {
    close(thread_gate.write_end);
    close(thread_gate.read_end);
    thread_gate = live_gate_open();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, filtered_thread, NULL) == 0);
    live_gate_await_thread(thread_gate);
    int fd = open(live_path("threaded"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    close(fd);
    live_wait();
    CHECK(mode() == 0 && fails_with(SYS_getsid) == 0, "the filter of one thread spread");
    CHECK(pthread_join(thread, NULL) == 0);
    _exit(0);
  }
  close(thread_gate.write_end);
  close(thread_gate.read_end);
  while (access(live_path("threaded"), F_OK)) live_pause();
  int before = mode();
  live_ready();
  live_wait();
  CHECK(mode() == before, "the parent's seccomp mode is %d", mode());
  live_reap_ok(child);
  live_reap_ok(threaded);
  live_ok();
}
