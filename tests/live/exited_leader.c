// SPDX-License-Identifier: Apache-2.0
// Thread group leaders that have exited while other threads live, of the root of the tree too; a child one has made
// before; memory and descriptors that only the others hold now; the exit status; pthread_exit(3).
#include "live.h"
#include <pthread.h>
#include <sys/wait.h>

enum { kStatus = 37 };
static int pipe_ends[2];
static pid_t grandchild;

static char state_of(pid_t pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  return strrchr(live_read_file(path, text, sizeof text), ')')[2];
}

static void *outlives(void *argument) {
  char byte;
  int status;
  CHECK(prctl(PR_SET_NAME, "survivor") == 0);
  CHECK(write(*(int *)argument, "r", 1) == 1);
  CHECK(read(pipe_ends[0], &byte, 1) == 1 && byte == 'x');  // blocked here while dumped
  CHECK(kill(grandchild, SIGKILL) == 0);
  CHECK(waitpid(grandchild, &status, __WALL) == grandchild && WTERMSIG(status) == SIGKILL);
  syscall(SYS_exit, 5);
  return NULL;
}

static void *idles(void *unused) {
  while (1) pause();
  return unused;
}

static void *whole(void *unused) {
  (void)unused;
  int said[2], status;
  char byte;
  CHECK(pipe(pipe_ends) == 0 && pipe(said) == 0);
  pid_t alone = fork();
  CHECK(alone >= 0);
  if (alone == 0) {
    pthread_t thread;
    grandchild = fork();
    CHECK(grandchild >= 0);
    if (grandchild == 0) {
      while (1) pause();
    }
    CHECK(prctl(PR_SET_NAME, "departed") == 0);
    CHECK(pthread_create(&thread, NULL, outlives, &said[1]) == 0);
    syscall(SYS_exit, kStatus);
  }
  pid_t many = fork();  // one that is killed with several threads left
  CHECK(many >= 0);
  if (many == 0) {
    pthread_t thread;
    for (int i = 0; i < 5; i++) CHECK(pthread_create(&thread, NULL, idles, NULL) == 0);
    syscall(SYS_exit, 1);
  }
  CHECK(read(said[0], &byte, 1) == 1);
  while (state_of(alone) != 'Z' || state_of(many) != 'Z') live_pause();
  live_ready();
  live_wait();

  while (state_of(alone) != 'Z' || state_of(many) != 'Z') live_pause();
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/comm", alone);
  CHECK(strcmp(live_read_file(path, text, sizeof text), "departed\n") == 0, "its name is %s", text);
  CHECK(waitpid(alone, &status, WNOHANG) == 0, "it has ended");
  CHECK(write(pipe_ends[1], "x", 1) == 1);
  CHECK(waitpid(alone, &status, 0) == alone);
  // That of the leader; since Linux 5.19 that of the last thread.
  CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == kStatus || WEXITSTATUS(status) == 5), "status %#x", status);
  CHECK(kill(many, SIGKILL) == 0 && waitpid(many, &status, 0) == many && WTERMSIG(status) == SIGKILL);
  live_ok();
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  if (syscall(SYS_pidfd_open, getpid(), O_EXCL /* PIDFD_THREAD */) < 0) _exit(77);  // Linux 6.9
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, whole, NULL) == 0);
  syscall(SYS_exit, 3);
}
