// SPDX-License-Identifier: Apache-2.0
// Processes that share their file table, or their root, cwd and umask, with their parent, clone(2); others that have
// left them; a thread with a cwd and umask of its own, unshare(2).
#include <pthread.h>

#include "live.h"

enum { kShared = 70, kClosed = 71, kLocked = 72, kNew = 75 };
enum { kSetUp, kOpen, kLook, kClose, kMove, kDone };  // steps of all, each of them begun by the first process

static struct {
  volatile int step, done;
}* shared;
static char first_dir[PATH_MAX], second_dir[PATH_MAX];

static void wait_for(int step) {
  while (shared->step < step) live_pause();
}
static void say_done(void) { __sync_fetch_and_add(&shared->done, 1); }
static void make_step(int step, int workers) {
  shared->done = 0;
  __sync_synchronize();
  shared->step = step;
  while (shared->done < workers) live_pause();
}

static pid_t born(int flags) {
  long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
  CHECK(pid >= 0, "clone");
  return (pid_t)pid;
}
static int is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }
static void check_cwd(const char* path, mode_t mask, const char* who) {
  char now[PATH_MAX];
  CHECK(getcwd(now, sizeof now), "%s", who);
  CHECK(!strcmp(now, path), "%s is in %s", who, now);
  mode_t old = umask(mask);
  CHECK(old == mask, "%s has umask %o", who, old);
}
static int locked_by_other(int fd) {
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
  CHECK(fcntl(fd, F_GETLK, &range) == 0);
  return range.l_type != F_UNLCK;
}

// Shares the files with its parent, and has taken a lock for both.
static void run_sharer(int last) {
  say_done();
  wait_for(kOpen);
  if (last) CHECK(open("/dev/null", O_RDONLY) >= 0 && dup2(kShared, kNew) == kNew);
  say_done();
  wait_for(kLook);
  CHECK(is_open(kNew) && is_open(kClosed));
  CHECK(!locked_by_other(kLocked), "a lock of its own table");
  check_cwd(first_dir, 022, "a sharer of files");
  say_done();
  wait_for(kClose);
  if (last) close(kClosed);
  say_done();
  wait_for(kMove);
  CHECK(!is_open(kClosed));
  check_cwd(first_dir, 022, "a sharer of files");
  say_done();
}

// Has files of its own.
static void run_apart(void) {
  say_done();
  wait_for(kOpen), say_done();
  wait_for(kLook);
  CHECK(!is_open(kNew) && is_open(kClosed));
  CHECK(locked_by_other(kLocked), "the lock of another table");
  say_done();
  wait_for(kClose), say_done();
  wait_for(kMove);
  CHECK(is_open(kClosed));
  say_done();
}

// Shares cwd and umask with its parent, not the files.
static void run_mover(void) {
  say_done();
  wait_for(kOpen), say_done();
  wait_for(kLook);
  CHECK(!is_open(kNew));
  check_cwd(first_dir, 022, "the mover");
  say_done();
  wait_for(kClose), say_done();
  wait_for(kMove);
  CHECK(chdir(second_dir) == 0);
  umask(0123);
  say_done();
}

static void* run_thread(void* gate) {
  CHECK(unshare(CLONE_FS) == 0 && chdir(second_dir) == 0);
  umask(0345);
  live_gate_pass_in_thread(*(struct live_gate*)gate);
  wait_for(kMove);
  check_cwd(second_dir, 0345, "the thread");
  return NULL;
}

int main(int argc, char** argv) {
  live_init(argc, argv);
  snprintf(first_dir, sizeof first_dir, "%s.first", live_result_path);
  snprintf(second_dir, sizeof second_dir, "%s.second", live_result_path);
  CHECK(mkdir(first_dir, 0755) == 0 && mkdir(second_dir, 0755) == 0);
  CHECK(chdir(first_dir) == 0);
  umask(022);
  shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  int fd = open("data", O_RDWR | O_CREAT, 0644);
  CHECK(fd >= 0 && dup2(fd, kShared) == kShared && dup2(fd, kClosed) == kClosed && dup2(fd, kLocked) == kLocked);
  close(fd);
  struct live_gate gate = live_gate_open();

  enum { kChildren = 4 };
  pid_t child[3];
  int here = 0;
  // A sharer with a sharer and one apart below it; one who shares the cwd; all of them but that one have the files.
  if ((child[here++] = born(CLONE_FILES)) == 0) {
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
    CHECK(fcntl(kLocked, F_SETLK, &range) == 0);
    pid_t below = born(CLONE_FILES);
    if (below == 0) run_sharer(1), _exit(0);
    pid_t apart = born(0);
    if (apart == 0) run_apart(), _exit(0);
    run_sharer(0);
    live_reap_ok(below);
    live_reap_ok(apart);
    _exit(0);
  }
  if ((child[here++] = born(CLONE_FS)) == 0) run_mover(), _exit(0);
  int of_child = syscall(SYS_pidfd_open, child[1], 0);  // restored late
  CHECK(of_child >= 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, run_thread, &gate) == 0);
  live_gate_await_thread(gate);
  while (shared->done < kChildren) live_pause();
  live_ready();
  live_wait();
  make_step(kOpen, kChildren);
  CHECK(is_open(kNew), "what a sharer has opened");
  CHECK(!locked_by_other(kLocked), "a lock of its own table");
  make_step(kLook, kChildren);
  make_step(kClose, kChildren);
  CHECK(!is_open(kClosed), "what a sharer has closed");
  check_cwd(first_dir, 022, "the first process");
  make_step(kMove, kChildren);
  check_cwd(second_dir, 0123, "the first process, moved by another");
  CHECK(pthread_join(thread, NULL) == 0);
  siginfo_t info = {};
  CHECK(waitid(3 /* P_PIDFD */, of_child, &info, WEXITED | WNOWAIT) == 0 && info.si_pid == child[1]);
  for (int i = 0; i < here; i++) live_reap_ok(child[i]);
  live_ok();
}
