// SPDX-License-Identifier: Apache-2.0
// System calls that were blocked when the task was stopped go on as if nothing had been: none may return EINTR.
// One child each, for calls that restart, that restart without a handler, that use a restart block, and that any stop ends with EINTR; signal(7).
#include "live.h"
#include <linux/futex.h>
#include <poll.h>
#include <sys/select.h>

static int data[2], to_read[2];  // written to after GO; nobody takes the byte out of the first
static int futex_word = 1;
static struct timespec started;
static const struct timespec kThree = {3, 0};

static double elapsed(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (now.tv_sec - started.tv_sec) + (now.tv_nsec - started.tv_nsec) / 1e9;
}
#define LASTED() CHECK(elapsed() >= 2.99, "it returned after %.2f s of 3", elapsed())

static void in_read(void) {
  char byte;
  CHECK(read(to_read[0], &byte, 1) == 1 && byte == 'r');
}
static void in_poll(void) {
  struct pollfd wait = {data[0], POLLPRI, 0};
  CHECK(poll(&wait, 1, 3000) == 0);
  LASTED();
}
static void in_poll_forever(void) {
  struct pollfd wait = {data[0], POLLIN, 0};
  CHECK(poll(&wait, 1, -1) == 1 && wait.revents == POLLIN);
}
static void in_ppoll(void) {
  CHECK(ppoll(NULL, 0, &kThree, NULL) == 0);
}
static void in_select(void) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(data[0], &set);
  struct timeval timeout = {60, 0};
  CHECK(select(data[0] + 1, &set, NULL, NULL, &timeout) == 1);
}
static void in_nanosleep(void) {
  struct timespec rest = {77, 0};
  CHECK(nanosleep(&kThree, &rest) == 0);
  LASTED();
}
static void in_clock_nanosleep(void) {
  struct timespec until = {started.tv_sec + 3, started.tv_nsec};
  CHECK(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == 0);
  LASTED();
}
static void in_futex(void) {
  CHECK(syscall(SYS_futex, &futex_word, FUTEX_WAIT_PRIVATE, 1, &kThree, NULL, 0) < 0 && errno == ETIMEDOUT);
  LASTED();
}
static void in_sigtimedwait(void) {
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, SIGUSR2);
  CHECK(sigprocmask(SIG_BLOCK, &one, NULL) == 0);
  CHECK(syscall(SYS_rt_sigtimedwait, &one, NULL, &kThree, 8) < 0 && errno == EAGAIN);
  CHECK(sigprocmask(SIG_UNBLOCK, &one, NULL) == 0);  // as it looks from outside during the call
  LASTED();
}
static volatile int woken;
static void wake(int s) { (void)s; woken = 1; }
static void in_pause(void) {
  signal(SIGUSR1, wake);
  CHECK(pause() < 0 && errno == EINTR && woken, "pause returned without a signal");
}
static void in_sigsuspend(void) {
  sigset_t none, one;
  sigemptyset(&none);
  sigemptyset(&one);
  sigaddset(&one, SIGUSR1);
  signal(SIGUSR1, wake);
  CHECK(sigprocmask(SIG_BLOCK, &one, NULL) == 0);
  CHECK(sigsuspend(&none) < 0 && woken, "sigsuspend returned without a signal");
  sigset_t now;
  CHECK(sigprocmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGUSR1), "the mask from before sigsuspend is lost");
}
static void in_wait(void) {
  pid_t child = fork();
  if (child == 0) {
    live_wait();
    _exit(4);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 4);
}

static const struct { void (*run)(void); int wants_signal; } kCalls[] = {
    {in_read, 0},  {in_poll, 0},          {in_poll_forever, 0}, {in_ppoll, 0}, {in_select, 0},     {in_nanosleep, 0},
    {in_futex, 0}, {in_clock_nanosleep, 0}, {in_pause, 1}, {in_sigsuspend, 1}, {in_wait, 0},     {in_sigtimedwait, 0}};
enum { kCount = sizeof kCalls / sizeof *kCalls };

static int is_blocked(pid_t pid) {  // in state S, in a system call
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  return strrchr(live_read_file(path, text, sizeof text), ')')[2] == 'S';
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  CHECK(pipe2(data, O_CLOEXEC) == 0 && pipe2(to_read, O_CLOEXEC) == 0);
  clock_gettime(CLOCK_MONOTONIC, &started);
  pid_t children[kCount];
  for (int i = 0; i < kCount; i++) {
    children[i] = fork();
    CHECK(children[i] >= 0);
    if (children[i] == 0) {
      kCalls[i].run();
      live_wait();  // those with a time limit may be early
      _exit(0);
    }
  }
  for (int i = 0; i < kCount; i++)
    while (!is_blocked(children[i])) live_pause();
  live_ready();
  live_wait();

  for (int i = 0; i < kCount; i++) {
    if (!kCalls[i].wants_signal) continue;
    int status;
    CHECK(waitpid(children[i], &status, WNOHANG) == 0, "call %d returned by itself: %#x", i, status);
    CHECK(kill(children[i], SIGUSR1) == 0);
  }
  CHECK(write(data[1], "p", 1) == 1 && write(to_read[1], "r", 1) == 1);
  for (int i = 0; i < kCount; i++) live_reap_ok(children[i]);
  live_ok();
}
