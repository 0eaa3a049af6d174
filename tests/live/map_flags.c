// SPDX-License-Identifier: Apache-2.0
// What mappings have besides contents and protection: guard pages, grown MAP_GROWSDOWN areas, MAP_DROPPABLE, memory that
// is locked (now, on fault, in future), all of madvise(2)'s lasting advice, names; mmap(2), mlock(2), madvise(2).
#include "live.h"
#include <setjmp.h>

enum { kPage = 4096, kGuardInstall = 102, kDroppable = 8 };
static sigjmp_buf back;
static void on_fault(int signal) { (void)signal, siglongjmp(back, 1); }
static int faults(volatile char *at) {
  if (sigsetjmp(back, 1)) return 1;
  (void)*at;
  return 0;
}
static char *map(size_t pages, int flags) {
  void *at = mmap(NULL, pages * kPage, PROT_READ | PROT_WRITE, flags | (flags & (MAP_SHARED | kDroppable) ? 0 : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
  CHECK(at != MAP_FAILED);
  return at;
}
static char *apart(size_t pages) {  // so that the kernel merges it with nothing
  char *at = map(pages + 2, 0);
  CHECK(mprotect(at, kPage, PROT_NONE) == 0 && mprotect(at + (pages + 1) * kPage, kPage, PROT_NONE) == 0);
  return at + kPage;
}
// The line `key` of the mapping's smaps; empty without /proc.
static void smaps(const void *address, const char *key, char *out, size_t size) {
  char line[512];
  int inside = 0;
  *out = 0;
  FILE *file = fopen("/proc/self/smaps", "re");
  if (!file) return;
  while (fgets(line, sizeof line, file)) {
    unsigned long start, end;
    if (sscanf(line, "%lx-%lx ", &start, &end) == 2) inside = start <= (unsigned long)address && (unsigned long)address < end;
    if (inside && !strncmp(line, key, strlen(key))) snprintf(out, size, "%s", line);
  }
  fclose(file);
}
static void resident(char *at, int count, int want) {
  unsigned char pages[64];
  CHECK(mincore(at, (size_t)count * kPage, pages) == 0);
  for (int i = 0; i < count; i++) CHECK((pages[i] & 1) == want, "page %d of %d: %d", i, count, pages[i]);
}

static const struct { int advice; const char *flag; } kAdvice[] = {
    {MADV_DONTFORK, "dc"}, {MADV_DONTDUMP, "dd"}, {MADV_MERGEABLE, "mg"}, {MADV_HUGEPAGE, "hg"}, {MADV_NOHUGEPAGE, "nh"},
    {MADV_WIPEONFORK, "wf"}, {MADV_SEQUENTIAL, "sr"}, {MADV_RANDOM, "rr"}};
enum { kAdvices = sizeof kAdvice / sizeof *kAdvice, kKept = kAdvices + 6 };

int main(int argc, char **argv) {
  live_init(argc, argv);
  struct sigaction action = {.sa_handler = on_fault};
  CHECK(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
  char *kept[kKept] = {0}, before[kKept][512], after[512];
  int advised[kAdvices];
  for (int i = 0; i < kAdvices; i++) {
    kept[i] = apart(4);
    kept[i][kPage] = (char)(i + 1);
    advised[i] = madvise(kept[i], 4 * kPage, kAdvice[i].advice) == 0;  // a kernel may be without
  }
  // Guard pages among pages with contents, and in shared memory.
  char *guarded = apart(16), *shared = map(16, MAP_SHARED);
  for (int i = 0; i < 16; i++) guarded[i * kPage] = shared[i * kPage] = (char)(i + 1);
  int guards = madvise(guarded + 3 * kPage, 2 * kPage, kGuardInstall) == 0 && madvise(guarded + 9 * kPage, kPage, kGuardInstall) == 0;
  int shared_guards = madvise(shared + 5 * kPage, kPage, kGuardInstall) == 0;
  char *first_guard = apart(3);
  if (guards) CHECK(madvise(first_guard, 3 * kPage, kGuardInstall) == 0);
  // Grows downwards, far from everything else.
  char *area = map(4096, MAP_NORESERVE);
  CHECK(munmap(area, 4096 * kPage) == 0);
  char *top = area + 4000 * kPage;
  CHECK(mmap(top, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0) == top);
  for (int i = 0; i < 8; i++) top[-i * kPage] = (char)(100 + i);

  char *droppable = mmap(NULL, 4 * kPage, PROT_READ | PROT_WRITE, kDroppable | MAP_ANONYMOUS, -1, 0);
  if (droppable != MAP_FAILED) droppable[0] = 5;
  char *locked = apart(8), *on_touch = apart(8), *shut = apart(2);
  locked[0] = on_touch[0] = 6;
  CHECK(mlock(locked, 8 * kPage) == 0 && mlock2(on_touch, 8 * kPage, MLOCK_ONFAULT) == 0);
  CHECK(mprotect(shut, 2 * kPage, PROT_NONE) == 0);
  mlock(shut, 2 * kPage);  // says ENOMEM and locks
  char *named = apart(2);
  prctl(0x53564d41 /* PR_SET_VMA */, 0 /* PR_SET_VMA_ANON_NAME */, named, 2 * kPage, "a name");
  char *own[] = {guarded, top, locked, on_touch, shut, named};
  for (int i = 0; i < 6; i++) kept[kAdvices + i] = own[i];

  pid_t child = fork();  // locks all that comes, on fault only
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(mlockall(MCL_FUTURE | MCL_ONFAULT) == 0);
    // Linux 6.1 does not show that a lock is on fault only, and then nobody can tell.
    smaps(map(1, 0), "VmFlags:", after, sizeof after);
    const int shown = !*after || strstr(after, " lf ");
    live_wait();
    char *later = map(8, 0);
    smaps(later, "VmFlags:", after, sizeof after);
    CHECK(!*after || (strstr(after, " lo ") && (!shown || strstr(after, " lf "))), "%s", after);
    if (!shown) _exit(0);
    resident(later, 8, 0);
    if (guards) CHECK(faults(guarded + 3 * kPage));
    _exit(0);
  }
  CHECK(mlockall(MCL_FUTURE) == 0);
  for (int i = 0; i < kKept; i++) smaps(kept[i], "VmFlags:", before[i], sizeof before[i]);
  char key[32], name[512], name_after[512];
  snprintf(key, sizeof key, "%lx-", (unsigned long)named);
  smaps(named, key, name, sizeof name);
  struct timespec some = {0, 50 * 1000 * 1000};
  nanosleep(&some, NULL);
  live_ready();
  live_wait();

  for (int i = 0; i < kKept; i++) {
    smaps(kept[i], "VmFlags:", after, sizeof after);
    // The soft-dirty bit and what a later write sets are not the task's.
    CHECK(!strcmp(before[i], after), "mapping %d: %s, was %s", i, after, before[i]);
    if (i < kAdvices && advised[i] && *after) CHECK(strstr(after, kAdvice[i].flag), "%s has no %s", after, kAdvice[i].flag);
    if (i < kAdvices) CHECK(kept[i][kPage] == i + 1 && kept[i][0] == 0);
  }
  for (int i = 0; i < 16; i++) {
    int is_guard = guards && (i == 3 || i == 4 || i == 9);
    CHECK(faults(guarded + i * kPage) == is_guard, "page %d", i);
    if (!is_guard) CHECK(guarded[i * kPage] == i + 1);
    CHECK(faults(shared + i * kPage) == (shared_guards && i == 5), "page %d of shared memory", i);
    if (!shared_guards || i != 5) CHECK(shared[i * kPage] == i + 1);
  }
  if (guards) CHECK(faults(first_guard) && faults(first_guard + 2 * kPage));
  for (int i = 0; i < 8; i++) CHECK(top[-i * kPage] == 100 + i);
  top[-12 * kPage] = 1;  // still grows, and not into its guard gap
  CHECK(faults(top - 3000 * kPage));
  if (droppable != MAP_FAILED) {
    CHECK(droppable[0] == 5 || droppable[0] == 0);
    CHECK(mlock(droppable, kPage) == 0);
    smaps(droppable, "VmFlags:", after, sizeof after);
    CHECK(!*after || (strstr(after, " dp ") && !strstr(after, " lo ")), "%s", after);
  }
  CHECK(locked[0] == 6 && on_touch[0] == 6);
  resident(locked, 8, 1);
  if (!*before[kAdvices + 3] || strstr(before[kAdvices + 3], " lf ")) resident(on_touch + kPage, 7, 0);
  resident(map(8, 0), 8, 1);  // mlockall(MCL_FUTURE)
  smaps(named, key, name_after, sizeof name_after);
  CHECK(!strcmp(name, name_after), "%s, was %s", name_after, name);
  live_reap_ok(child);
  live_ok();
}
