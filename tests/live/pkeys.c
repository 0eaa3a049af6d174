// SPDX-License-Identifier: Apache-2.0
// Memory protection keys, pkeys(7): several, one freed in between, one freed while memory has it; denied pages with
// contents; memory that can only be executed, for which the kernel takes a key of its own; threads and a child with
// rights of their own.
#include "live.h"
#include <pthread.h>
#include <setjmp.h>

enum { kPages = 6, kPage = 4096, kDenied = 1, kReadOnly = 2, kOpen = 4, kFreedInUse = 5, kLast = 6, kKernels = 3 };
static unsigned char *at[kPages];  // with kDenied, kReadOnly, kOpen, kFreedInUse, none, the kernel's
static const int kKeyOf[kPages] = {kDenied, kReadOnly, kOpen, kFreedInUse, 0, kKernels};

static unsigned rights(void) {
  unsigned value, ignored;
  __asm__ volatile(".byte 0x0f, 0x01, 0xee" : "=a"(value), "=d"(ignored) : "c"(0));
  return value;
}
static void set_rights(unsigned value) {
  __asm__ volatile(".byte 0x0f, 0x01, 0xef" : : "a"(value), "c"(0), "d"(0) : "memory");
}
static unsigned deny(int key) { return 1u << 2 * key; }
static unsigned deny_writes(int key) { return 2u << 2 * key; }

static __thread sigjmp_buf back;
static void caught(int signal, siginfo_t *info, void *context) {
  (void)signal, (void)context;
  siglongjmp(back, info->si_code == 4 /* SEGV_PKUERR */ ? 100 + (int)info->si_pkey : 1);
}
// The key by which an access is denied; 0: none.
static int denied_by(volatile unsigned char *where, int write, unsigned with) {
  const int found = sigsetjmp(back, 1);
  if (found == 0) {
    set_rights(with);
    if (write) *where = *where;
    else (void)*where;
  }
  set_rights(0);
  CHECK(found == 0 || found >= 100, "a fault that is not a key's");
  return found ? found - 100 : 0;
}

static void verify(unsigned wanted, const char *who) {
  const unsigned now = rights();
  CHECK(now == wanted, "%s: rights %#x, were %#x", who, now, wanted);
  for (int i = 0; i < kPages; i++) {
    // Whose key is denied to nobody has none.
    CHECK(denied_by(at[i], 0, 0x55555554) == kKeyOf[i], "%s: page %d has another key", who, i);
    CHECK(denied_by(at[i], 0, wanted) == (wanted & deny(kKeyOf[i]) ? kKeyOf[i] : 0), "%s: page %d", who, i);
    if (kKeyOf[i] != kKernels) CHECK(denied_by(at[i], 1, wanted) == (wanted >> 2 * kKeyOf[i] & 3 ? kKeyOf[i] : 0), "%s: page %d", who, i);
    set_rights(0);
    for (int n = 0; i < 5 && n < kPage; n++) CHECK(at[i][n] == (unsigned char)(i * 31 + n), "%s: contents of page %d", who, i);
  }
  CHECK(((int (*)(void))at[5])() == 4711, "%s: code", who);
  set_rights(wanted);
}

static unsigned own_key_rights;
static pthread_barrier_t barrier;
static unsigned of_thread(long i) {
  return own_key_rights | (i ? deny(kOpen) | deny_writes(kLast) : deny(kReadOnly) | deny_writes(kDenied));
}
static void *body(void *argument) {
  const long i = (long)argument;
  set_rights(of_thread(i));
  pthread_barrier_wait(&barrier);
  live_wait();
  verify(of_thread(i), i ? "second thread" : "first thread");
  return NULL;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  if (syscall(SYS_pkey_alloc, 0, 0) != 1) _exit(77);
  for (int key = 2; key <= kLast; key++) CHECK(syscall(SYS_pkey_alloc, 0, 0) == key);
  for (int i = 0; i < kPages; i++) {
    at[i] = mmap(NULL, 3 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);  // never beside another
    CHECK(at[i] != MAP_FAILED);
    at[i] += kPage;
    CHECK(mprotect(at[i], kPage, PROT_READ | PROT_WRITE) == 0);
    for (int n = 0; n < kPage; n++) at[i][n] = (unsigned char)(i * 31 + n);
    if (kKeyOf[i] && kKeyOf[i] != kKernels) CHECK(syscall(SYS_pkey_mprotect, at[i], kPage, PROT_READ | PROT_WRITE, kKeyOf[i]) == 0);
  }
  memcpy(at[5], "\xb8\x67\x12\x00\x00\xc3", 6);  // mov $4711, %eax; ret
  CHECK(syscall(SYS_pkey_free, kKernels) == 0);
  CHECK(mprotect(at[5], kPage, PROT_EXEC) == 0);  // the lowest free key becomes the kernel's
  CHECK(syscall(SYS_pkey_free, kFreedInUse) == 0);
  struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
  CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
  own_key_rights = deny(kKernels);
  const unsigned mine = own_key_rights | deny(kDenied) | deny_writes(kReadOnly) | deny(9);
  set_rights(mine);
  verify(mine, "before");
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    const unsigned theirs = own_key_rights | deny(kDenied) | deny(kLast);
    CHECK(syscall(SYS_pkey_alloc, 0, 0) == kFreedInUse && syscall(SYS_pkey_alloc, 0, 0) == 7);
    set_rights(theirs);
    live_gate_pass(gate);
    live_wait();
    verify(theirs, "child");
    CHECK(syscall(SYS_pkey_alloc, 0, 0) == 8, "the child's keys");
    _exit(0);
  }
  live_gate_await(gate, 1);
  pthread_t threads[2];
  CHECK(pthread_barrier_init(&barrier, NULL, 3) == 0);
  for (long i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, body, (void *)i) == 0);
  pthread_barrier_wait(&barrier);
  live_ready();
  live_wait();
  verify(mine, "after");
  CHECK(syscall(SYS_pkey_alloc, 0, 0) == kFreedInUse && syscall(SYS_pkey_alloc, 0, 0) == 7, "other keys are free");
  for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  live_reap_ok(child);
  live_ok();
}
