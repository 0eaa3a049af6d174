// SPDX-License-Identifier: Apache-2.0
// A long queue of signals, near RLIMIT_SIGPENDING, in order; signals that the kernel itself sends, with all that they
// tell, to the process and to a thread; sigqueue(3). And a stream of numbered signals from outside, none of which may
// be lost or come twice: the runner says in GO how many it has sent.
#include "live.h"
#include <pthread.h>
#include <sys/resource.h>
#include <sys/time.h>

enum { kLong = 500 };
#define kStream (SIGRTMIN + 1)
#define kQueued (SIGRTMIN + 2)
#define kOfThread (SIGRTMIN + 3)

static volatile int counted, wrong = -1;
static void count(int s, siginfo_t *info, void *context) {
  (void)s, (void)context;
  if (info->si_value.sival_int != counted && wrong < 0) wrong = info->si_value.sival_int;
  counted++;
}
static siginfo_t take(int signal) {
  sigset_t one;
  siginfo_t info;
  struct timespec none = {0, 0};
  sigemptyset(&one);
  sigaddset(&one, signal);
  CHECK(syscall(SYS_rt_sigtimedwait, &one, &info, &none, 8) == signal, "signal %d is lost", signal);
  return info;
}
static int queue(pid_t tid, int signal, int value) {
  siginfo_t info = {.si_code = SI_QUEUE, .si_pid = getpid(), .si_uid = getuid(), .si_value.sival_int = value};
  return syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, signal, &info);
}

static int thread_ready;
static void *other_thread(void *unused) {
  (void)unused;
  pid_t tid = syscall(SYS_gettid);
  for (int i = 0; i < 20; i++) CHECK(queue(tid, kOfThread, i) == 0);
  __atomic_store_n(&thread_ready, 1, __ATOMIC_SEQ_CST);
  while (access(live_go_path, F_OK)) live_pause();
  for (int i = 0; i < 20; i++) {
    siginfo_t info = take(kOfThread);
    CHECK(info.si_value.sival_int == i && info.si_code == SI_QUEUE, "%d instead of %d", info.si_value.sival_int, i);
  }
  return NULL;
}

static int queued;
static void fill_queue(void) {
  char text[4096];
  struct rlimit limit;
  long used = 0;
  const char *line = strstr(live_read_file("/proc/self/status", text, sizeof text), "SigQ:");
  CHECK(line && sscanf(line, "SigQ: %ld", &used) == 1 && getrlimit(RLIMIT_SIGPENDING, &limit) == 0);
  limit.rlim_cur = used + kLong;
  CHECK(setrlimit(RLIMIT_SIGPENDING, &limit) == 0);
  while (queued < 2 * kLong && sigqueue(getpid(), kQueued, (union sigval){.sival_int = queued}) == 0) queued++;
  CHECK(queued > 10, "only %d signals could be queued", queued);
  limit.rlim_cur += 50;  // room for the stream
  CHECK(setrlimit(RLIMIT_SIGPENDING, &limit) == 0);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  sigset_t blocked;
  sigemptyset(&blocked);
  int kBlocked[] = {kQueued, kOfThread, SIGALRM, SIGCHLD, SIGPIPE};
  for (int i = 0; i < 5; i++) sigaddset(&blocked, kBlocked[i]);
  CHECK(sigprocmask(SIG_SETMASK, &blocked, NULL) == 0);
  struct sigaction action = {.sa_sigaction = count, .sa_flags = SA_SIGINFO | SA_RESTART};
  CHECK(sigaction(kStream, &action, NULL) == 0);

  pid_t child = fork();
  if (child == 0) _exit(7);
  struct itimerval soon = {{0, 0}, {0, 1}};
  sigset_t pending;
  CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
  do CHECK(sigpending(&pending) == 0);
  while (!sigismember(&pending, SIGALRM) || !sigismember(&pending, SIGCHLD));
  pthread_t thread;
  sigset_t stream;
  sigemptyset(&stream);
  sigaddset(&stream, kStream);
  CHECK(pthread_sigmask(SIG_BLOCK, &stream, NULL) == 0);  // one receiver, or their order is nobody's
  CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0 && pthread_sigmask(SIG_UNBLOCK, &stream, NULL) == 0);
  while (!__atomic_load_n(&thread_ready, __ATOMIC_SEQ_CST)) live_pause();
  int ends[2];
  CHECK(pipe(ends) == 0 && close(ends[0]) == 0 && write(ends[1], "x", 1) < 0 && errno == EPIPE && close(ends[1]) == 0);
  fill_queue();
  live_ready();
  live_wait();

  siginfo_t info = take(SIGALRM);
  CHECK(info.si_code == SI_KERNEL, "code %d", info.si_code);
  info = take(SIGCHLD);
  CHECK(info.si_code == CLD_EXITED && info.si_pid == child && info.si_status == 7, "code %d of %d, status %d", info.si_code, info.si_pid, info.si_status);
  CHECK(sigpending(&pending) == 0 && !sigismember(&pending, SIGCHLD), "one more SIGCHLD");
  info = take(SIGPIPE);
  CHECK(info.si_code == SI_USER && info.si_pid == getpid());
  for (int i = 0; i < queued; i++) {
    info = take(kQueued);
    CHECK(info.si_value.sival_int == i && info.si_code == SI_QUEUE, "%d instead of %d", info.si_value.sival_int, i);
  }
  CHECK(sigpending(&pending) == 0 && !sigismember(&pending, kQueued), "more than %d signals", queued);
  CHECK(pthread_join(thread, NULL) == 0);
  int status;
  CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
  const int sent = atoi(live_argument);
  while (counted < sent) live_pause();
  CHECK(wrong < 0 && counted == sent, "number %d out of order, %d came of %d", wrong, counted, sent);
  live_ok();
}
